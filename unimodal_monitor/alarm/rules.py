"""The rules: a grown advantage of the members, an open gap."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unimodal_monitor.alarm.losses import PeakFell, RiseLost
from unimodal_monitor.alarm.rule import Finding, Loss, Record, check_share
from unimodal_monitor.alarm.state import AlarmState
from unimodal_monitor.signals.gap import normalized_gap
from unimodal_monitor.signals.growth import Advantage, advantage, growth, growth_estimate
from unimodal_monitor.signals.measured import Measured
from unimodal_monitor.stats.paired import adjusted_means

REFERENCES = (1, 2, 4, 8)
"""Numbers of the checks that growth is measured from, whatever they show; all are paid for from the first on."""
LOW_LEVEL = 0.2
"""Levels up to this fraction of the data's standard deviation are low: fine noise or rounding may open a gap there."""


@dataclass(frozen=True)
class AdvantageGrew:
    """The members' advantage over held-out images has grown significantly by over `min_growth`: memorization begins.

    Errors of the same images with the same noise are compared with those of earlier checks, as `growth` does. What
    differs between members and held-out images from the start, such as a noisier camera, cancels. A network that was
    trained before is compared with its check before the first step, too.

    >>> AdvantageGrew(min_growth=0.05).state.value
    'onset'

    Args:
        min_growth: Smallest growth that counts, in logarithms of the error: 0.025 is about 2.5 %. Estimates of healthy
            runs were at most 0.01 for images and 0.023 for vectors (benchmarks/README.md).
        share: Share of the alarm's significance.

    Raises:
        ValueError: If an argument is out of range.
    """

    min_growth: float = 0.025
    share: float = 0.4
    state: AlarmState = AlarmState.ONSET

    def __post_init__(self) -> None:
        check_share(self.share)
        if not self.min_growth >= 0:
            raise ValueError(f"min_growth = {self.min_growth}; must be a growth of the log error, from 0")

    def test(self, measured: Measured, reference: Record | None, *, number: int, step: int, alpha: float) -> Finding:
        """See `Rule`."""
        now = advantage(measured, step=step)
        if now is None:
            sentence = f"members and held-out images cannot be compared: {measured.why_no_gap}"
            return Finding(False, sentence, reference, is_tested=False, is_ready=False)
        count = 1 if reference is None else reference["count"] + 1
        before = [] if reference is None else [_read(record) for record in reference["advantages"]]
        kept = [*before, now] if count in REFERENCES else before
        record = {"count": count, "advantages": [_written(one) for one in kept]}
        if not before:
            return Finding(False, "nothing to compare with yet", record, is_ready=False)
        found = [growth(now, old, measured.covariates) for old in before]
        best = [
            (float(low), float(mean), sigma, old.step)
            for old, (sigmas, means) in zip(before, found, strict=True)
            for low, mean, sigma in zip(
                means.lower(alpha / len(REFERENCES) / len(sigmas)), means.mean, sigmas, strict=True
            )
        ]
        low, mean, sigma, since = max(best)
        estimate = growth_estimate(*found[0], step=before[0].step)
        return Finding(low > self.min_growth, _explain(mean, low, sigma, since), record, estimate=estimate)


def _explain(mean: float, low: float, sigma: float, step: int) -> str:
    share, least, where = -np.expm1(-mean), -np.expm1(-low), f"since step {step} (sigma {sigma:.3g}"
    if low <= 0:
        return f"the members' advantage did not grow significantly {where}: {share:+.1%})"
    return f"the members' error fell {share:.1%} more than that of held-out images {where}; at least {least:.1%})"


def _written(one: Advantage) -> dict[str, Any]:
    return {"step": one.step, "sigmas": list(one.sigmas), "values": one.values.tolist()}


def _read(record: Record) -> Advantage:
    return Advantage(record["step"], tuple(record["sigmas"]), np.array(record["values"]))


@dataclass(frozen=True)
class GapOpened:
    """The denoising gap is significantly more than a share of the memorizer's at two levels, one of them not a low one.

    (L_heldout - L_members) / (L_heldout - L_memorizer) > `min_gap` is a difference of means that is linear in the
    errors, (1 - g) L_heldout + g L_memorizer - L_members > 0: it has an ordinary paired t-test, adjusted for the image
    statistics of each pair. It needs no labels and no earlier check. With `losses`, one of them must be significant,
    too: the rule triggers falsely only if a part that is false is significant, so that each part may be given the whole
    alpha (intersection-union test).

    >>> GapOpened(min_gap=1.5)
    Traceback (most recent call last):
    ValueError: min_gap = 1.5; must be a share of the memorizer's gap, 0 to 1

    Args:
        min_gap: g, from 0 (members are treated like held-out images) to 1 (the memorizer).
        losses: What the features may have lost; without any, the gap alone triggers.
        share: Share of the alarm's significance.

    Raises:
        ValueError: If an argument is out of range.
    """

    min_gap: float = 0.5
    losses: Sequence[Loss] = ()
    share: float = 0.2
    state: AlarmState = AlarmState.MEMORIZING

    def __post_init__(self) -> None:
        check_share(self.share)
        if not 0 <= self.min_gap < 1:
            raise ValueError(f"min_gap = {self.min_gap}; must be a share of the memorizer's gap, 0 to 1")

    @classmethod
    def confirmed(cls) -> "GapOpened":
        """A tenth of the memorizer's gap, where the rise, the peak or the invariance is lost."""
        return cls(0.1, losses=(RiseLost(), PeakFell(), PeakFell("invariance", min_fall=0.005)), share=0.4)

    def test(self, measured: Measured, reference: Record | None, *, number: int, step: int, alpha: float) -> Finding:
        """See `Rule`."""
        old = [None] * len(self.losses) if reference is None else reference["losses"]
        lost = [
            loss.test(measured, before, number=number, step=step, alpha=alpha / len(self.losses))
            for loss, before in zip(self.losses, old, strict=True)
        ]
        record = {"losses": [found.reference for found in lost]} if lost else None
        errors = measured.heldout_error, measured.members_error, measured.memorizer_error
        if (why := measured.shift or measured.why_no_gap) is not None:
            return Finding(False, f"no statement about the gap: {why}", record, is_tested=False, is_ready=False)
        is_tested = not lost or any(found.is_tested for found in lost)
        heldout_KP, members_KP, memorizer_KP = (error.numpy() for error in errors if error is not None)
        beyond_KP = (1 - self.min_gap) * heldout_KP + self.min_gap * memorizer_KP - members_KP
        is_over_K = adjusted_means(beyond_KP, measured.covariates).lower(alpha / len(beyond_KP)) > 0
        is_high_K = (measured.sigmas > LOW_LEVEL * measured.data_std).numpy()
        is_open = bool(is_over_K.sum() >= 2 and (is_over_K & is_high_K).any())
        estimate = normalized_gap(measured)
        best = None if estimate is None else estimate.headline
        where = f"{best.value:.0%} of the memorizer's at sigma {best.sigma:.3g}" if best else "not defined at any level"
        sentence = f"the denoising gap is {where}" + f", significantly over {self.min_gap:.0%}" * is_open
        found_lost = [found.sentence for found in lost if found.triggered]
        if lost and is_open:
            sentence = f"{sentence}; {' and '.join(found_lost) or 'but the features have lost nothing significantly'}"
        return Finding(is_open and (not lost or bool(found_lost)), sentence, record, is_tested)
