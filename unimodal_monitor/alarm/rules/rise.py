"""RiseLost: the hump of the curve was there and is gone."""

from dataclasses import dataclass, replace

import numpy as np

from unimodal_monitor.alarm.rules.base import BestSoFar, Finding, Forecast, Look, Terms, check_share, may_exceed
from unimodal_monitor.stats.max_t import low_end
from unimodal_monitor.stats.paired import lower_limits
from unimodal_monitor.stats.verdict import MIN_RISE

GROWTH = 1.25
"""A reference is out of date where the rise has grown by this factor: its half is then no half any more."""


@dataclass
class RiseLost(BestSoFar):
    """The rise over the low-noise end was established and has fallen below a part of what it was.

    Established: at some interior level the score is surely higher than at the low-noise end and than at the
    highest level. Lost: at no interior level is the rise as much as `lost_fraction` of the established one.

    Args:
        lost_fraction: 0 to 1.
        min_rise: a rise counts from this fraction of the curve's value at its low-noise end.
        share: of the alarm's significance; half of it is for establishing, half for losing.

    Raises:
        ValueError: if an argument is out of range.
    """

    lost_fraction: float = 0.5
    min_rise: float = MIN_RISE
    share: float = 0.5

    def __post_init__(self) -> None:
        check_share(self.share)
        if not 0 < self.lost_fraction < 1:
            raise ValueError(f"lost_fraction = {self.lost_fraction}; it lies between 0 and 1")
        if not self.min_rise >= 0:
            raise ValueError(f"min_rise = {self.min_rise}; it is a fraction of the curve's height, from 0")

    def look(self, look: Look, *, error: float) -> Finding:
        """See `Rule`."""
        pooled = low_end(look.curve)
        low_M = look.score_KM[:pooled].mean(0)
        interior_KM = look.score_KM[pooled:-1]
        rise_KM = interior_KM - low_M
        is_lost = self._is_under(rise_KM, self.lost_fraction, look.number, error / 2)
        limit_K = self._limits(look, interior_KM, low_M, error / 2)
        reaches = bool(limit_K.max() > 0)
        if reaches and self._keep_best(look, rise_KM, limit_K, pooled):
            self._keep_glance(look, pooled, pooled + int(limit_K.argmax()))
        sentence = self._explain(look.step, float(rise_KM.mean(1).max()), is_lost)
        return Finding(is_lost, self.reference is not None, reaches, sentence)

    def forecast(self, look: Look, terms: Terms) -> Forecast:
        """See `Rule`."""
        pooled = low_end(look.curve)
        low_M, above_KM = look.score_KM[:pooled].mean(0), look.score_KM[pooled:]
        each = replace(terms, check_error=terms.check_error / 2 / len(above_KM), error=terms.error / len(above_KM))
        establishes = bool(may_exceed(above_KM - (1 + self.min_rise) * low_M, each).any())
        if self.reference is None:
            return Forecast(False, establishes, False, "no rise is in sight")
        was_M = np.array(self.reference.glance_M[: look.score_KM.shape[1]])
        if not len(was_M) or was_M.mean() <= 0:
            return Forecast(True, True, True, "earlier checks made no room for a glance")
        rise_KM = above_KM - low_M
        each = replace(each, check_error=each.check_error / max(1, look.number - 1))
        loses = bool(may_exceed(self.lost_fraction * was_M - rise_KM, each).all())
        grows = bool(lower_limits(rise_KM - GROWTH * was_M, error=each.error).max() > 0)
        share = rise_KM.mean(1).max() / was_M.mean()
        return Forecast(
            loses, establishes, grows, f"the rise stands at {share:.0%} of that of step {self.reference.step}"
        )

    def _keep_glance(self, look: Look, pooled: int, level: int) -> None:
        if look.glance_KM is not None and self.reference is not None:
            rise_M = look.glance_KM[level] - look.glance_KM[:pooled].mean(0)
            self.reference = replace(self.reference, glance_M=tuple(rise_M.tolist()))

    def _limits(self, look: Look, interior_KM: np.ndarray, low_M: np.ndarray, error: float) -> np.ndarray:
        """(K,) lower limits of the rise beyond `min_rise`; negative where the curve does not surely fall behind it."""
        each = error / len(interior_KM)
        limit_K = lower_limits(interior_KM - (1 + self.min_rise) * low_M, error=each)
        falls_K = lower_limits(interior_KM - look.score_KM[-1], error=each) > 0
        return np.where(falls_K & (low_M.mean() > 0), limit_K, -np.inf)

    def _explain(self, step: int, rise: float, is_lost: bool) -> str:
        if self.reference is None:
            return "no rise is sure enough yet to hold over all checks"
        if self.reference.step == step:
            return f"a rise of {self.reference.mean:.3g} at sigma {self.reference.sigma:.3g} is established"
        was = f"{self.reference.mean:.3g} (step {self.reference.step}, sigma {self.reference.sigma:.3g})"
        if is_lost:
            return f"the rise was {was} and is now {rise:.3g}, surely less than {self.lost_fraction:.0%} of it"
        return f"the rise stands at {rise / self.reference.mean:.0%} of the {was}"
