"""Checks of known truth, with signals, for everything that shows or stores them."""

from collections.abc import Sequence
from dataclasses import replace

from simulated import FALLING, HUMPED, SIGMAS, STD, simulated_scores

from unimodal_monitor.alarm.state import AlarmState
from unimodal_monitor.check import Check
from unimodal_monitor.copies.audit import Audit
from unimodal_monitor.signals.measured import Measured
from unimodal_monitor.stats.estimate import Curve, Estimate
from unimodal_monitor.stats.verdict import judge


def simulated_signal(
    name: str, label: str, best: float, neutral: float | None = None, *, levels: Sequence[int] = range(9)
) -> Estimate:
    """`best` at level 3 and 0.1 less at any other; limits lie 0.05 below and 0.07 above."""
    value = [best if level == 3 else best - 0.1 for level in levels]
    low, high = tuple(each - 0.05 for each in value), tuple(each + 0.07 for each in value)
    return Estimate(name, label, tuple(float(SIGMAS[level]) for level in levels), tuple(value), low, high, neutral)


SIGNALS = (
    simulated_signal("normalized_gap", "normalized gap (1: memorizer)", 0.3, 0.0, levels=range(2, 6)),
    simulated_signal("invariance", "invariance (1 - ICR)", 0.4),
    simulated_signal("spread_auc", "AUC of activation spread", 0.6, 0.5),
)


def simulated_check(
    step: int, mean: Sequence[float] = HUMPED, *, state: AlarmState = AlarmState.GENERALIZING, layers: int = 2
) -> Check:
    """A check of 300 held-out images whose scores have the mean `mean` on every layer."""
    names = [f"up_blocks.{layer}" for layer in range(layers)]
    both = {name: simulated_scores(mean, num_images=300, seed=seed) for seed, name in enumerate(names)}
    score, correct = ({name: arrays[part] for name, arrays in both.items()} for part in (0, 1))
    curves = tuple(
        Curve.from_images(name, SIGMAS, STD, score_KN=score_KN, score_name="Brier gain", correct_KN=correct_KN)
        for name, (score_KN, correct_KN) in both.items()
    )
    return Check(
        step=step,
        curves=curves,
        verdict=judge(curves[-1]),
        state=state,
        evidence=f"evidence of step {step}",
        weights="ema",
        seconds=1.5,
        signals=SIGNALS,
        measured=Measured(SIGMAS, STD, tuple(names), "Brier gain", score, correct),
    )


def without_labels(check: Check) -> Check:
    """The check as of unlabelled images, whose score is the invariance."""
    name = "invariance (1 - ICR)"
    curves = [replace(curve, accuracy=None, score=replace(curve.score, name=name)) for curve in check.curves]
    return replace(check, curves=tuple(curves), measured=Measured(SIGMAS, STD, (check.curve.layer,), name))


AUDIT = Audit(300, 21, 20, (0.044, 0.105), (), 12.0, 300 * 35)
"""21 copies among 300 samples, as read from a file."""
RUN = (
    simulated_check(0, FALLING, state=AlarmState.WARMING_UP),
    simulated_check(100, HUMPED),
    replace(simulated_check(207, FALLING, state=AlarmState.MEMORIZING), audit=AUDIT),
)
"""A run in which the alarm is raised, and copies are counted then."""
