"""Rules: what may raise the alarm. Each compares a check with the best one before it and keeps to its error."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Protocol

import numpy as np

from unimodal_monitor.change import Reference, lower_limits, surely_under, upper_limits
from unimodal_monitor.curve import Curve
from unimodal_monitor.shape import low_end
from unimodal_monitor.verdict import MIN_RISE


@dataclass(frozen=True, eq=False)
class Look:
    """One check as a rule sees it.

    Args:
        number: of the check in the run, from 1.
        step: of the training.
        curve: that is judged.
        score_KM: (K, M) the probe's score of every held-out image, the same images at every check.
        glance_KM: (K, M') the score as a glance measures it; None where no glances are made.
    """

    number: int
    step: int
    curve: Curve
    score_KM: np.ndarray
    glance_KM: np.ndarray | None = None


class Outlook(Enum):
    """What a rule would say of a check, as far as a glance tells."""

    STANDS = "stands"
    """What it guards is surely not lost."""
    LOST = "lost"
    """It is surely lost, at the levels that were looked at."""
    NOTHING = "nothing"
    """There is surely nothing yet that could be lost."""
    OPEN = "open"
    """A full check would tell."""


@dataclass(frozen=True)
class Glimpse:
    """What a rule says of a glance: its outlook, and the evidence."""

    outlook: Outlook
    sentence: str = ""


@dataclass(frozen=True)
class Finding:
    """What a rule says of one check.

    Args:
        holds: the rule speaks: what it guards is surely lost.
        is_established: there is something to lose.
        reaches: this check would establish it anew.
        sentence: the evidence.
    """

    holds: bool
    is_established: bool
    reaches: bool
    sentence: str


class Rule(Protocol):
    """What may raise the alarm.

    The union of all its false statements over a run has at most the probability that it is given: `error` at
    each check, for every comparison that this check could make.
    """

    share: float
    """Of the alarm's significance, 0 to 1."""

    def look(self, look: Look, *, error: float) -> Finding:
        """Take in one check; `error` is what it may spend."""
        ...

    def glimpse(self, look: Look, *, error: float) -> Glimpse | None:
        """What a glance tells of the rule; None if the rule is left to full checks.

        Args:
            look: with the levels and the images of the glance; their scores are those of its own probe.
            error: of saying anything but OPEN.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Primitives only."""
        ...

    def load_state_dict(self, record: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        ...


@dataclass
class BestSoFar:
    """A rule that keeps the best check and compares every later one with it."""

    reference: Reference | None = field(default=None, init=False)

    def state_dict(self) -> dict[str, Any]:
        """Primitives only."""
        return {"reference": None if self.reference is None else self.reference.to_dict()}

    def load_state_dict(self, record: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.reference = None if record["reference"] is None else Reference.from_dict(record["reference"])

    def _is_under(self, values_KM: np.ndarray, mark: float, number: int, error: float) -> bool:
        """Whether all are surely under `mark` times the reference, which may be any level of any earlier check."""
        if self.reference is None:
            return False
        candidates = len(values_KM) * (number - 1)
        reference_M = mark * np.array(self.reference.values_M)
        return surely_under(values_KM, reference_M, error=error / candidates)

    def glimpse(self, look: Look, *, error: float) -> Glimpse | None:
        """See `Rule`; full checks look after it."""
        return None

    def _keep_best(self, look: Look, values_KM: np.ndarray, limit_K: np.ndarray, first_level: int) -> bool:
        """Whether this check is the new reference."""
        best = int(limit_K.argmax())
        if self.reference is not None and limit_K[best] <= self.reference.limit:
            return False
        sigma = look.curve.sigmas[first_level + best]
        values_M = tuple(values_KM[best].tolist())
        self.reference = Reference(look.step, sigma, float(limit_K[best]), values_M)
        return True


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
        _check_share(self.share)
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

    def glimpse(self, look: Look, *, error: float) -> Glimpse:
        """See `Rule`."""
        pooled = low_end(look.curve)
        low_M, above_KM = look.score_KM[:pooled].mean(0), look.score_KM[pooled:]
        if self.reference is None:
            excess_KM = above_KM - (1 + self.min_rise) * low_M
            is_none = upper_limits(excess_KM, error=error / len(excess_KM)).max() < 0
            return Glimpse(Outlook.NOTHING if is_none else Outlook.OPEN, "there is surely no rise yet")
        was_M = np.array(self.reference.glance_M[: look.score_KM.shape[1]])
        if not len(was_M):
            return Glimpse(Outlook.OPEN)
        rise_KM = above_KM - low_M
        share = f"{rise_KM.mean(1).max() / was_M.mean():.0%} of that of step {self.reference.step}"
        beyond_KM = rise_KM - self.lost_fraction * was_M
        if lower_limits(beyond_KM, error=error / 2 / len(beyond_KM)).max() > 0:
            return Glimpse(Outlook.STANDS, f"the rise stands, at {share}")
        if surely_under(rise_KM, self.lost_fraction * was_M, error=error / 2):
            return Glimpse(Outlook.LOST, f"the rise is still lost, at {share}")
        return Glimpse(Outlook.OPEN)

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


@dataclass
class PeakFell(BestSoFar):
    """The peak of the curve has fallen from its best.

    Args:
        min_fall: it counts from this fraction of the best, 0 to 1.
        share: of the alarm's significance.

    Raises:
        ValueError: if an argument is out of range.
    """

    min_fall: float = 0.05
    share: float = 0.5

    def __post_init__(self) -> None:
        _check_share(self.share)
        if not 0 <= self.min_fall < 1:
            raise ValueError(f"min_fall = {self.min_fall}; it is a fraction of the best peak, 0 to 1")

    def look(self, look: Look, *, error: float) -> Finding:
        """See `Rule`."""
        has_fallen = self._is_under(look.score_KM, 1 - self.min_fall, look.number, error)
        limit_K = lower_limits(look.score_KM, error=error / len(look.score_KM))
        reaches = bool(limit_K.max() > 0)
        if reaches:
            self._keep_best(look, look.score_KM, limit_K, 0)
        return Finding(has_fallen, self.reference is not None, reaches, self._explain(look, has_fallen))

    def _explain(self, look: Look, has_fallen: bool) -> str:
        peak = float(look.score_KM.mean(1).max())
        if self.reference is None:
            return "the probe knows nothing yet"
        was = f"{self.reference.mean:.3g} (step {self.reference.step})"
        if has_fallen:
            return f"the peak fell from {was} to {peak:.3g}, surely by more than {self.min_fall:.0%}"
        return f"the peak stands at {peak / self.reference.mean:.0%} of its best, {was}"


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"share = {share}; it is a part of the alarm's significance, 0 to 1")
