"""A check as scalars for a logger, and its headline for `ModelCheckpoint` and `EarlyStopping`."""

from unimodal_monitor.alarm.alarm import AlarmState
from unimodal_monitor.check import Check
from unimodal_monitor.glance import Glance
from unimodal_monitor.stats.verdict import Shape

SHAPE_CODES = {Shape.MONOTONE: -1.0, Shape.UNDECIDED: 0.0, Shape.UNIMODAL: 1.0}
STATE_CODES = {
    AlarmState.NEVER_UNIMODAL: -1.0,
    AlarmState.WARMING_UP: 0.0,
    AlarmState.ARMED: 1.0,
    AlarmState.FADING: 2.0,
    AlarmState.RAISED: 3.0,
}
LEVELS = (("gap", "gap", "gap_K"), ("icr", "contamination", "icr_K"), ("spikiness_auc", "spikiness", "auc_K"))
"""What is told of a witness level by level: the scalar's name, the witness, and its figures."""


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
        "unimodal/peak_score": max(check.curve.score.mean),
        "unimodal/shape": SHAPE_CODES[check.verdict.shape],
        **cost(check),
        **_witnesses(check),
    }


def scalars(check: Check) -> dict[str, float]:
    """The headline, and the judged curve level by level."""
    quantities = {"score": check.curve.score.mean}
    if check.curve.accuracy is not None:
        quantities["accuracy"] = check.curve.accuracy.mean
    for name, witness, key in LEVELS:
        if said := check.testimony.get(witness):
            quantities[name] = said[key]
    levels = {
        f"unimodal/{name}/sigma_{sigma:.3g}": value
        for name, values in quantities.items()
        for sigma, value in zip(check.curve.sigmas, values, strict=True)
    }
    return {**headline(check), **levels}


def _witnesses(check: Check) -> dict[str, float]:
    """One number for each witness, where it was heard."""
    values: dict[str, float] = {}
    if check.curve.peak_accuracy is not None:
        values["unimodal/peak_accuracy"] = check.curve.peak_accuracy
    if (gap := check.testimony.get("gap")) and gap["normalized"] and gap["normalized"]["value_L"]:
        values["unimodal/normalized_gap"] = max(gap["normalized"]["value_L"])
    if said := check.testimony.get("contamination"):
        values["unimodal/icr"] = min(said["icr_K"])
    if said := check.testimony.get("spikiness"):
        values["unimodal/spikiness_auc"] = max(said["auc_K"])
    if check.audit is not None:
        low, high = check.audit.interval
        values |= {
            "unimodal/copies": check.audit.fraction,
            "unimodal/copies_low": low,
            "unimodal/copies_high": high,
        }
    return values
