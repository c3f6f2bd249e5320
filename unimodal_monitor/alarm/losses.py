"""What the features lose where memorization goes on: the rise of the probe's curve, its peak, the invariance.

A healthy run may lose the same, such as at a lower learning rate: a loss never raises the alarm, it confirms a gap.
"""

from dataclasses import dataclass

import numpy as np

from unimodal_monitor.alarm.rule import Finding, Record, Reference, better_reference, is_below
from unimodal_monitor.signals.measured import Measured
from unimodal_monitor.stats.max_t import low_end
from unimodal_monitor.stats.paired import lower_limits
from unimodal_monitor.stats.verdict import MIN_RISE


@dataclass(frozen=True)
class RiseLost:
    """The rise of the curve over its low-noise end was established and has fallen below a share of what it was.

    Established: at some interior level the score is significantly higher than at the low-noise end and than at the
    highest level. Lost: at no interior level is the rise as much as `lost_fraction` of the established one.

    >>> RiseLost(lost_fraction=0.7).min_rise
    0.005

    Args:
        lost_fraction: Share of the established rise, 0 to 1.
        min_rise: Smallest rise that counts, as a share of the curve's value at its low-noise end.

    Raises:
        ValueError: If an argument is out of range.
    """

    lost_fraction: float = 0.5
    min_rise: float = MIN_RISE

    def __post_init__(self) -> None:
        if not 0 < self.lost_fraction < 1:
            raise ValueError(f"lost_fraction = {self.lost_fraction}; must lie between 0 and 1")
        if not self.min_rise >= 0:
            raise ValueError(f"min_rise = {self.min_rise}; must be a share of the curve's height, from 0")

    def test(self, measured: Measured, reference: Record | None, *, number: int, step: int, alpha: float) -> Finding:
        """See `Loss`; half of alpha is for establishing, half for losing."""
        if not measured.score:
            return Finding(False, "the probe was not scored", reference, is_tested=False)
        old = None if reference is None else Reference(**reference)
        score_KM, pooled = measured.judged_score, low_end(measured)
        low_M, interior_KM = score_KM[:pooled].mean(0), score_KM[pooled:-1]
        rise_KM, height = interior_KM - low_M, float(low_M.mean())
        is_lost = is_below(rise_KM, old, self.lost_fraction, number=number, alpha=alpha / 2)
        each = alpha / 2 / len(interior_KM)
        limit_K = lower_limits(interior_KM - (1 + self.min_rise) * low_M, error=each)
        falls_K = lower_limits(interior_KM - score_KM[-1], error=each) > 0
        limit_K = np.where(falls_K & (height > 0), limit_K, -np.inf)
        best = better_reference(old, measured.sigmas[pooled:-1], rise_KM, limit_K, step=step, height=height)
        sentence = self._explain(best, rise_KM, step, is_lost)
        return Finding(is_lost, sentence, None if best is None else best.to_dict())

    def _explain(self, best: Reference | None, rise_KM: np.ndarray, step: int, is_lost: bool) -> str:
        if best is None:
            return "no rise is significant yet at the level that holds over all checks"
        was = f"{best.mean / best.height:.1%} of the curve's height at sigma {best.sigma:.3g}"
        if best.step == step:
            return f"a rise of {was} is established"
        share = f"the rise is {rise_KM.mean(1).max() / best.mean:.0%} of that of step {best.step} ({was})"
        return f"{share}, significantly less than {self.lost_fraction:.0%}" if is_lost else share


@dataclass(frozen=True)
class PeakFell:
    """The peak of a curve over noise has fallen from its best, significantly at all levels.

    >>> PeakFell("invariance", min_fall=0.005).signal
    'invariance'

    Args:
        signal: "score" for the probe's score, "invariance" for 1 - ICR, which needs no labels. That of vectors, whose
            views differ by noise alone, does not fall.
        min_fall: Smallest fall that counts, as a share of the best peak.

    Raises:
        ValueError: If an argument is out of range.
    """

    signal: str = "score"
    min_fall: float = 0.05

    def __post_init__(self) -> None:
        if self.signal not in ("score", "invariance"):
            raise ValueError(f"signal = {self.signal!r}; must be 'score' or 'invariance'")
        if not 0 <= self.min_fall < 1:
            raise ValueError(f"min_fall = {self.min_fall}; must be a share of the best peak, 0 to 1")

    def test(self, measured: Measured, reference: Record | None, *, number: int, step: int, alpha: float) -> Finding:
        """See `Loss`."""
        is_score = self.signal == "score"
        what = "peak of the score" if is_score else "invariance of the features"
        values = (measured.judged_score if measured.score else None) if is_score else measured.invariance
        if values is None:
            return Finding(False, f"the {what} was not measured", reference, is_tested=False)
        values_KM, old = np.asarray(values), None if reference is None else Reference(**reference)
        has_fallen = is_below(values_KM, old, 1 - self.min_fall, number=number, alpha=alpha)
        limit_K = lower_limits(values_KM, error=alpha / len(values_KM))
        best = better_reference(old, measured.sigmas, values_KM, limit_K, step=step, height=1.0)
        if best is None:
            return Finding(False, f"the {what} is not significantly above 0 yet")
        was = f"{best.mean:.3g} (step {best.step})"
        peak = float(values_KM.mean(1).max())
        sentence = f"the {what} is {peak / best.mean:.0%} of its best, {was}"
        if has_fallen:
            sentence = f"the {what} fell from {was} to {peak:.3g}, significantly by more than {self.min_fall:.1%}"
        return Finding(has_fallen, sentence, best.to_dict())
