"""A check as scalars for a logger, and its headline for `ModelCheckpoint` and `EarlyStopping`."""

from unimodal_monitor.alarm import AlarmState
from unimodal_monitor.check import Check
from unimodal_monitor.glance import Glance
from unimodal_monitor.verdict import Shape

SHAPE_CODES = {Shape.MONOTONE: -1.0, Shape.UNDECIDED: 0.0, Shape.UNIMODAL: 1.0}
STATE_CODES = {
    AlarmState.NEVER_UNIMODAL: -1.0,
    AlarmState.WARMING_UP: 0.0,
    AlarmState.ARMED: 1.0,
    AlarmState.FADING: 2.0,
    AlarmState.RAISED: 3.0,
}


def cost(found: Check | Glance) -> dict[str, float]:
    """State of the alarm, seconds and forwards of this look, and the share of the training's time so far."""
    overhead = {} if found.overhead is None else {"unimodal/overhead": found.overhead}
    return {
        "unimodal/alarm": STATE_CODES[found.state],
        "unimodal/seconds": found.seconds,
        "unimodal/forwards": float(found.num_forwards),
        **overhead,
    }


def headline(check: Check) -> dict[str, float]:
    """The few numbers to monitor, all finite: shape is -1, 0 or 1; alarm is -1 (never) to 3 (raised)."""
    return {
        "unimodal/rise": check.verdict.rise,
        "unimodal/rise_low": check.verdict.rise_low,
        "unimodal/rise_high": check.verdict.rise_high,
        "unimodal/peak_sigma": check.verdict.peak_sigma,
        "unimodal/peak_accuracy": max(check.curve.accuracy.mean),
        "unimodal/peak_score": max(check.curve.score.mean),
        "unimodal/shape": SHAPE_CODES[check.verdict.shape],
        **cost(check),
    }


def scalars(check: Check) -> dict[str, float]:
    """The headline, and the judged curve level by level."""
    curve = check.curve
    levels = {}
    for sigma, accuracy, score in zip(curve.sigmas, curve.accuracy.mean, curve.score.mean, strict=True):
        levels[f"unimodal/accuracy/sigma_{sigma:.3g}"] = accuracy
        levels[f"unimodal/score/sigma_{sigma:.3g}"] = score
    return {**headline(check), **levels}
