"""judge: the shape of a curve, and the evidence for it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from unimodal_monitor.stats.estimate import Curve
from unimodal_monitor.stats.max_t import low_end, rises

MIN_RISE = 0.005
TOLERANCE = 0.01


class Shape(Enum):
    """The shape of a curve over noise.

    >>> Shape("monotone")
    <Shape.MONOTONE: 'monotone'>
    """

    UNIMODAL = "unimodal"
    """An interior level is significantly higher than the low-noise end, and the curve falls from there."""
    MONOTONE = "monotone"
    """Every level is significantly less than the tolerance above the low-noise end."""
    UNDECIDED = "undecided"
    """Too few images to tell, or neither shape."""


@dataclass(frozen=True)
class Verdict:
    """The shape of one curve with its evidence: a measurement, and not yet "memorizing".

    >>> import torch
    >>> score = torch.tensor([[0.30], [0.36], [0.2], [0.1]]) + 0.001 * torch.randn(4, 50)
    >>> verdict = judge(Curve.from_images("mid", torch.tensor([0.1, 1, 2, 4]), 0.5, score_KN=score, score_name="gain"))
    >>> print(f"{verdict.shape.value}, {verdict.rise:.0%} over {verdict.height:.1f}, at sigma {verdict.peak_sigma:.0f}")
    unimodal, 20% over 0.3, at sigma 1
    """

    shape: Shape
    quantity: str  # what was judged, with its unit
    rise: float  # of the highest interior level over the low-noise end, as a share of `height`; negative where all fall
    rise_low: float  # lower confidence limit of the largest rise, whichever level has it, as a share
    rise_high: float  # upper confidence limit of the largest rise, as a share
    peak_sigma: float  # level of the largest rise, in data units
    height: float  # at the low-noise end, in units of the quantity; shares are of its absolute value, or 1 if it is 0
    p_value: float  # of the largest rise where all levels have one mean; of this check alone
    reason: str  # evidence in one sentence

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
    """The shape of a curve, from paired differences with limits that hold for all levels simultaneously.

    >>> import torch
    >>> score = torch.tensor([[0.3], [0.4], [0.2], [0.1]]) + 0.01 * torch.randn(4, 50)
    >>> judge(Curve.from_images("mid", torch.tensor([0.1, 1, 2, 4]), 0.5, score_KN=score, score_name="gain")).shape
    <Shape.UNIMODAL: 'unimodal'>

    Args:
        curve: Curve of at least four levels, or a ValueError is raised.
        quantity: "score" or "accuracy"; the score shows the same rise with a fraction of the error.
        confidence: Confidence of all limits together.
        min_rise: UNIMODAL needs a rise significantly above this share of the height at the low-noise end.
        tolerance: MONOTONE needs all rises significantly below this share.
    """
    if quantity not in ("score", "accuracy"):
        raise ValueError(f"quantity must be 'score' or 'accuracy', got {quantity!r}")
    if len(curve.sigmas) < 4:
        raise ValueError(f"need at least 4 noise levels to judge a curve, got {len(curve.sigmas)}")
    means = curve.score if quantity == "score" else curve.accuracy
    if means is None:
        raise ValueError("quantity = 'accuracy' needs labels; without labels, judge the score")
    found, pooled = rises(curve, means, confidence=confidence), low_end(curve)
    height = sum(means.mean[:pooled]) / pooled
    rise, low, high = (row / (abs(height) or 1.0) for row in (found.rise, found.lower, found.upper))
    peak = int(rise[:-1].argmax())
    peak_sigma, at_least, at_most = curve.sigmas[found.levels[peak]], float(low[:-1].max()), float(high.max())
    shape = Shape.UNDECIDED
    if height <= 0:
        reason = f"at low noise the {means.name} is {height:.2g}: the features carry no information"
    elif at_least > min_rise and high[-1] < at_least:
        shape, reason = Shape.UNIMODAL, f"rises by at least {at_least:.1%} to sigma {peak_sigma:.3g}, then falls"
    elif at_least > min_rise:
        reason = "rises up to the highest level: the grid needs more noise to show a peak"
    elif at_most < tolerance:
        shape, reason = Shape.MONOTONE, f"no level is above the low-noise end by more than {max(at_most, 0):.1%}"
    else:
        reason = f"the rise lies between {at_least:+.1%} and {at_most:+.1%}: more images are needed"
    share, share_high = float(rise[peak]), float(high[:-1].max())
    return Verdict(shape, means.name, share, at_least, share_high, peak_sigma, height, found.p_value, reason)
