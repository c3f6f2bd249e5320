"""The rules: a lost rise, a fallen peak, an open gap."""

from dataclasses import dataclass

import numpy as np

from unimodal_monitor.alarm.rule import Finding, Reference, better_reference, check_share, is_below
from unimodal_monitor.signals.gap import normalized_gap
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
        share: Share of the alarm's significance; half of it is for establishing, half for losing.

    Raises:
        ValueError: If an argument is out of range.
    """

    lost_fraction: float = 0.5
    min_rise: float = MIN_RISE
    share: float = 0.5

    def __post_init__(self) -> None:
        check_share(self.share)
        if not 0 < self.lost_fraction < 1:
            raise ValueError(f"lost_fraction = {self.lost_fraction}; must lie between 0 and 1")
        if not self.min_rise >= 0:
            raise ValueError(f"min_rise = {self.min_rise}; must be a share of the curve's height, from 0")

    def test(self, measured: Measured, reference: Reference | None, *, number: int, step: int, alpha: float) -> Finding:
        """See `Rule`."""
        score_KM, pooled = measured.judged_score, low_end(measured)
        low_M, interior_KM = score_KM[:pooled].mean(0), score_KM[pooled:-1]
        rise_KM, height = interior_KM - low_M, float(low_M.mean())
        is_lost = is_below(rise_KM, reference, self.lost_fraction, number=number, alpha=alpha / 2)
        each = alpha / 2 / len(interior_KM)
        limit_K = lower_limits(interior_KM - (1 + self.min_rise) * low_M, error=each)
        falls_K = lower_limits(interior_KM - score_KM[-1], error=each) > 0
        limit_K = np.where(falls_K & (height > 0), limit_K, -np.inf)
        best = better_reference(reference, measured.sigmas[pooled:-1], rise_KM, limit_K, step=step, height=height)
        sentence = self._explain(best, rise_KM, step, is_lost)
        return Finding(is_lost, best is not None, bool(limit_K.max() > 0), sentence, "", best)

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
    """The peak of a curve over noise has fallen from its best, while the denoising gap is open.

    Triggered where both are significant at `alpha`. It triggers falsely only if a part that is false is significant,
    so that each part may be given the whole alpha (intersection-union test).

    >>> PeakFell("invariance", min_fall=0.005).min_gap
    0.1

    Args:
        signal: "score" for the probe's score, "invariance" for 1 - ICR, which needs no labels. The invariance may fall
            for other reasons than memorization, such as the learning rate; that of vectors, whose views differ by noise
            alone, does not fall.
        min_fall: Smallest fall that counts, as a share of the best peak.
        min_gap: See `GapOpened`; None tests the peak alone.
        share: Share of the alarm's significance.

    Raises:
        ValueError: If an argument is out of range.
    """

    signal: str = "score"
    min_fall: float = 0.05
    min_gap: float | None = 0.1
    share: float = 0.25

    def __post_init__(self) -> None:
        if self.signal not in ("score", "invariance"):
            raise ValueError(f"signal = {self.signal!r}; must be 'score' or 'invariance'")
        if not 0 <= self.min_fall < 1:
            raise ValueError(f"min_fall = {self.min_fall}; must be a share of the best peak, 0 to 1")
        if self.min_gap is not None:
            GapOpened(self.min_gap)
        check_share(self.share)

    def test(self, measured: Measured, reference: Reference | None, *, number: int, step: int, alpha: float) -> Finding:
        """See `Rule`."""
        peak = self._test_peak(measured, reference, number=number, step=step, alpha=alpha)
        if self.min_gap is None:
            return peak
        gap = GapOpened(self.min_gap).test(measured, None, number=number, step=step, alpha=alpha)
        triggered = [finding.sentence for finding in (peak, gap) if finding.triggered]
        is_both = len(triggered) == 2
        return Finding(
            is_both,
            peak.is_established and gap.is_established,
            peak.reaches and gap.reaches,
            " and ".join(triggered) if is_both else f"{peak.sentence}; {gap.sentence}",
            "" if is_both else "".join(triggered),
            peak.reference,
        )

    def _test_peak(
        self, measured: Measured, reference: Reference | None, *, number: int, step: int, alpha: float
    ) -> Finding:
        is_score = self.signal == "score"
        what = "peak of the score" if is_score else "invariance of the features"
        values = measured.judged_score if is_score else measured.invariance
        if values is None:
            return Finding(False, False, False, f"the {what} was not measured", "", reference)
        values_KM = np.asarray(values)
        has_fallen = is_below(values_KM, reference, 1 - self.min_fall, number=number, alpha=alpha)
        limit_K = lower_limits(values_KM, error=alpha / len(values_KM))
        best = better_reference(reference, measured.sigmas, values_KM, limit_K, step=step, height=1.0)
        if best is None:
            return Finding(False, False, False, f"the {what} is not significantly above 0 yet")
        was = f"{best.mean:.3g} (step {best.step})"
        peak = float(values_KM.mean(1).max())
        sentence = f"the {what} is {peak / best.mean:.0%} of its best, {was}"
        if has_fallen:
            sentence = f"the {what} fell from {was} to {peak:.3g}, significantly by more than {self.min_fall:.1%}"
        return Finding(has_fallen, True, bool(limit_K.max() > 0), sentence, "", best)


@dataclass(frozen=True)
class GapOpened:
    """The denoising gap is significantly more than a share of the memorizer's.

    At some level (L_heldout - L_members) / (L_heldout - L_memorizer) > `min_gap`, as a difference of means that is
    linear in the errors and so has an ordinary paired t-test: (1 - g) L_heldout + g L_memorizer - L_members > 0.
    It needs no labels and no earlier check. It means that members are treated better; copies may come much later or
    never.

    >>> GapOpened(min_gap=1.5)
    Traceback (most recent call last):
    ValueError: min_gap = 1.5; must be a share of the memorizer's gap, 0 to 1

    Args:
        min_gap: g, from 0 (members are treated like held-out images) to 1 (the memorizer).
        share: Share of the alarm's significance.

    Raises:
        ValueError: If an argument is out of range.
    """

    min_gap: float = 0.1
    share: float = 0.5

    def __post_init__(self) -> None:
        check_share(self.share)
        if not 0 <= self.min_gap < 1:
            raise ValueError(f"min_gap = {self.min_gap}; must be a share of the memorizer's gap, 0 to 1")

    def test(self, measured: Measured, reference: Reference | None, *, number: int, step: int, alpha: float) -> Finding:
        """See `Rule`; a gap that was measured arms, since members and held-out images may still be treated alike."""
        errors = measured.heldout_error, measured.members_error, measured.memorizer_error
        if measured.shift is not None or any(error is None or not error.isfinite().all() for error in errors):
            return Finding(False, False, False, "the denoising gap was not measured, or cannot be trusted")
        heldout_KP, members_KP, memorizer_KP = (error.numpy() for error in errors if error is not None)
        beyond_KP = (1 - self.min_gap) * heldout_KP + self.min_gap * memorizer_KP - members_KP
        is_open = bool(lower_limits(beyond_KP, error=alpha / len(beyond_KP)).max() > 0)
        estimate = normalized_gap(measured)
        best = None if estimate is None else estimate.headline
        where = f"{best.value:.0%} of the memorizer's at sigma {best.sigma:.3g}" if best else "not defined at any level"
        significantly = f", significantly over {self.min_gap:.0%}" if is_open else ""
        return Finding(is_open, True, not is_open, f"the denoising gap is {where}{significantly}")
