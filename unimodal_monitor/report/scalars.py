"""The table of scalar keys: a check as finite numbers, for loggers, `ModelCheckpoint` and `EarlyStopping`."""

import math
from collections.abc import Mapping

from unimodal_monitor.check import Check
from unimodal_monitor.stats.verdict import Shape

SHAPE_CODES = {Shape.MONOTONE: -1.0, Shape.UNDECIDED: 0.0, Shape.UNIMODAL: 1.0}


def headline(check: Check, *, prefix: str = "unimodal") -> dict[str, float]:
    """The numbers worth monitoring, as `{prefix}/{name}`; what was not measured has no key.

    The state counts from 0, warming up, to 4, copying. Rises are shares of the curve's height at its low-noise end,
    sigmas are in data units, accuracies and copies from 0 to 1; overhead is seconds of checks per second of training.
    Each signal has its headline value under its name.
    """
    verdict = check.verdict
    copies = (None, None, None) if check.audit is None else (check.audit.fraction, *check.audit.interval)
    values = {
        **{signal.name: signal.headline.value if signal.headline else None for signal in check.signals},
        **{name: getattr(verdict, name) for name in ("rise", "rise_low", "rise_high", "peak_sigma")},
        "peak_score": max(check.curve.score.mean),
        "peak_accuracy": check.curve.peak_accuracy,
        "shape": SHAPE_CODES[verdict.shape],
        "state": float(check.state.rank),
        "seconds": check.seconds,
        "forwards": float(check.num_forwards),
        "overhead": check.overhead,
        **dict(zip(("copies", "copies_low", "copies_high"), copies, strict=True)),
    }
    return _finite(values, prefix)


def scalars(check: Check, *, prefix: str = "unimodal") -> dict[str, float]:
    """The headline, and as `{prefix}/{name}/sigma_{sigma:.3g}` the judged curve and all signals level by level."""
    levels = {signal.name: (signal.sigmas, signal.value) for signal in check.signals}
    levels["score"] = check.curve.sigmas, check.curve.score.mean
    if check.curve.accuracy is not None:
        levels["accuracy"] = check.curve.sigmas, check.curve.accuracy.mean
    rows = [(name, *row) for name, columns in levels.items() for row in zip(*columns, strict=True)]
    values = {f"{name}/sigma_{sigma:.3g}": value for name, sigma, value in rows}
    return {**headline(check, prefix=prefix), **_finite(values, prefix)}


def _finite(values: Mapping[str, float | None], prefix: str) -> dict[str, float]:
    found = {f"{prefix}/{name}": value for name, value in values.items() if value is not None}
    return {key: value for key, value in found.items() if math.isfinite(value)}
