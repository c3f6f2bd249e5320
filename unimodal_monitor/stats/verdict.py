"""judge: what a curve's shape is, and on which evidence."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from unimodal_monitor.stats.estimate import Curve
from unimodal_monitor.stats.max_t import Rises, low_end, rises

MIN_RISE = 0.005
TOLERANCE = 0.01


class Shape(Enum):
    """The shape of a curve over noise, as far as the images tell."""

    UNIMODAL = "unimodal"
    """Some interior level is higher than the low-noise end, and the curve falls from there."""
    MONOTONE = "monotone"
    """No level is higher than the low-noise end by more than the tolerance."""
    UNDECIDED = "undecided"
    """The images do not tell, or the curve has neither shape."""


@dataclass(frozen=True)
class Verdict:
    """The shape of one curve with its evidence; a measurement, and not yet "memorizing".

    Args:
        shape: of the curve.
        quantity: that was judged, with its unit.
        rise: of the highest interior level over the low-noise end, in units of the quantity; negative where the
            curve only falls.
        rise_low: lower confidence limit of the largest rise, whichever level has it.
        rise_high: upper confidence limit of it.
        peak_sigma: level of the largest rise, in data units.
        height: value of the quantity at the low-noise end, the scale of the rise.
        p_value: of the largest rise, where in truth all levels are alike; of this check alone.
        reason: the evidence in one sentence.
    """

    shape: Shape
    quantity: str
    rise: float
    rise_low: float
    rise_high: float
    peak_sigma: float
    height: float
    p_value: float
    reason: str

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Verdict":
        """Inverse of `to_dict`."""
        return cls(**{**record, "shape": Shape(record["shape"])})

    def to_dict(self) -> dict[str, Any]:
        """Primitives only."""
        return {**asdict(self), "shape": self.shape.value}


def judge(
    curve: Curve,
    *,
    quantity: str = "score",
    confidence: float = 0.95,
    min_rise: float = MIN_RISE,
    tolerance: float = TOLERANCE,
) -> Verdict:
    """The shape of a curve, from paired differences with limits that hold for all levels at once.

    Args:
        curve: of four levels or more.
        quantity: "score" or "accuracy"; the score sees the same rise with a fraction of the error.
        confidence: of all limits together.
        min_rise: UNIMODAL needs a rise of surely more than this fraction of the curve's value at its low-noise end.
        tolerance: MONOTONE allows rises of surely less than this fraction of it.

    Raises:
        ValueError: if `quantity` is something else or the curve has fewer than four levels.
    """
    if quantity not in ("score", "accuracy"):
        raise ValueError(f"quantity = {quantity!r}; it is 'score' or 'accuracy'")
    if len(curve.sigmas) < 4:
        raise ValueError(f"a curve of {len(curve.sigmas)} levels has no shape to judge; four are needed")
    estimate = curve.score if quantity == "score" else curve.accuracy
    if estimate is None:
        raise ValueError("quantity = 'accuracy': a curve without labels has none; judge its score")
    found = rises(curve, estimate, confidence=confidence)
    pooled = low_end(curve)
    height = sum(estimate.mean[:pooled]) / pooled
    interior = found.rise[:-1]
    peak_sigma = curve.sigmas[found.levels[int(interior.argmax())]]
    shape, reason = _decide(found, height, peak_sigma, min_rise=min_rise, tolerance=tolerance)
    return Verdict(
        shape=shape,
        quantity=estimate.name,
        rise=float(interior.max()),
        rise_low=float(found.lower[:-1].max()),
        rise_high=float(found.upper[:-1].max()),
        peak_sigma=peak_sigma,
        height=height,
        p_value=found.p_value,
        reason=reason,
    )


def _decide(found: Rises, height: float, peak_sigma: float, *, min_rise: float, tolerance: float) -> tuple[Shape, str]:
    surely, at_most = found.lower[:-1].max(), found.upper.max()
    if height <= 0:
        return Shape.UNDECIDED, "at low noise the probe predicts no better than the class frequencies"
    if surely > min_rise * height:
        if found.upper[-1] < surely:
            return (
                Shape.UNIMODAL,
                f"rises by at least {surely / height:.1%} to sigma {peak_sigma:.3g} and falls from there",
            )
        return Shape.UNDECIDED, "rises up to the highest level: the grid needs more noise to see a peak"
    if at_most < tolerance * height:
        return Shape.MONOTONE, f"no level is higher than the low-noise end by more than {max(at_most, 0) / height:.1%}"
    return (
        Shape.UNDECIDED,
        f"the rise lies between {surely / height:+.1%} and {at_most / height:+.1%}: more images would tell",
    )
