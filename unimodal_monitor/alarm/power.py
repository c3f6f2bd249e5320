"""Power: how large a rise a probe set of some size can show, before any image is collected."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from unimodal_monitor.alarm.alarm import Alarm
from unimodal_monitor.alarm.rules.rise import RiseLost
from unimodal_monitor.alarm.spending import share_of_check
from unimodal_monitor.stats.estimate import Curve
from unimodal_monitor.stats.max_t import critical_value, low_end
from unimodal_monitor.stats.verdict import MIN_RISE

RISES = (0.01, 0.02, 0.03, 0.04, 0.06, 0.10, 0.20)
SPREAD, SPREAD_WHEN_LOST = 0.45, 0.2
"""Measured on CIFAR-10 with the ridge probe, where the rise is established and after it was lost."""
CORRELATION = 0.3
WANTED_POWER = 0.8
CONFIDENCE = 0.95
"""Of the verdict, as `judge` has it."""


@dataclass(frozen=True)
class PowerRow:
    """What one check makes of a rise, as probabilities.

    Args:
        rise: as a fraction of the curve's value at its low-noise end, its height.
        unimodal: the verdict is UNIMODAL.
        established: the alarm's rule holds the rise for sure; from then on it can be lost.
        lost: the rule sees it, if the established rise has vanished entirely.
    """

    rise: float
    unimodal: float
    established: float
    lost: float


@dataclass(frozen=True)
class Plan:
    """A run to come, and what is assumed of it.

    Args:
        num_checks: of the run, and planned by its alarm; the tests are those of the check in the middle.
        spread: standard deviation of the rise over images, as a fraction of the height.
        spread_when_lost: the same after the rise is gone; levels are then more alike.
        correlation: of one image's rise between two checks, -1 to 1.
        num_interior: levels between the low end and the highest; six of the paper's nine.
        significance: of the alarm.
        rule: that guards the rise.

    Raises:
        ValueError: if an argument is out of range.
    """

    num_checks: int
    spread: float = SPREAD
    spread_when_lost: float = SPREAD_WHEN_LOST
    correlation: float = CORRELATION
    num_interior: int = 6
    significance: float = Alarm.significance
    rule: RiseLost = field(default_factory=RiseLost)

    def __post_init__(self) -> None:
        for name in ("num_checks", "num_interior"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}; it is a count, from 1")
        for name in ("spread", "spread_when_lost"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} = {getattr(self, name)}; it is a fraction of the curve's height, above 0")
        if not -1 <= self.correlation <= 1:
            raise ValueError(f"correlation = {self.correlation}; it lies between -1 and 1")
        if not 0 < self.significance < 1:
            raise ValueError(f"significance = {self.significance}; it lies between 0 and 1")

    @property
    def middle(self) -> int:
        """Number of the check in mid-run, and never the first, at which nothing can be lost."""
        return max(2, (self.num_checks + 1) // 2)

    @property
    def error(self) -> float:
        """That establishing, and losing, may each spend at that check; see `RiseLost`."""
        return self.significance * share_of_check(self.middle, planned=self.num_checks) * self.rule.share / 2


def power_table(num_images: int, plan: Plan, *, rises: Sequence[float] = RISES) -> list[PowerRow]:
    """The power of the verdict and of the alarm for rises of some sizes.

    One level has the rise and all others are clearly lower; at a loss one level is left at the low end's height.
    A plateau of several levels is established a little sooner, and its loss is seen a little later.

    Args:
        num_images: M, held-out images that are scored; see `scored_images`.
        plan: the run and its assumptions.
        rises: as fractions of the curve's height.

    Raises:
        ValueError: if there are fewer than two images.
    """
    rule = plan.rule
    established = _student_isf(plan.error / plan.num_interior, num_images)
    lost = _student_isf(plan.error / (plan.num_interior * (plan.middle - 1)), num_images)
    unimodal = _verdict_critical_value(plan, num_images)
    before, after = rule.lost_fraction * plan.spread, plan.spread_when_lost
    change_spread = (before**2 + after**2 - 2 * plan.correlation * before * after) ** 0.5
    return [
        PowerRow(
            rise,
            unimodal=_power((rise - MIN_RISE) / plan.spread, unimodal, num_images),
            established=_power((rise - rule.min_rise) / plan.spread, established, num_images),
            lost=_power(rule.lost_fraction * rise / change_spread, lost, num_images),
        )
        for rise in rises
    ]


def smallest_rise(num_images: int, plan: Plan) -> float:
    """The rise that one check establishes with 80 % probability, as a fraction of the curve's height."""
    shift, scale = _normal_terms(_student_isf(plan.error / plan.num_interior, num_images), num_images)
    return plan.rule.min_rise + plan.spread * (shift + scale * float(norm.ppf(WANTED_POWER))) / num_images**0.5


def images_needed(rise: float, plan: Plan) -> int:
    """Fewest scored images with which one check establishes the rise with 80 % probability.

    Raises:
        ValueError: if a rise of this size does not count, however many images there are.
    """
    if rise <= plan.rule.min_rise:
        raise ValueError(f"rise = {rise}; it counts from min_rise = {plan.rule.min_rise}")
    too_few, enough = 1, 2
    while smallest_rise(enough, plan) > rise:
        too_few, enough = enough, 2 * enough
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if smallest_rise(middle, plan) <= rise else (middle, enough)
    return enough


def scored_images(num_heldout: int, num_fit: int | None = None) -> int:
    """M, what fitting the probe leaves of the held-out images; `num_fit` as in `ProbeSet.from_datasets`.

    Raises:
        ValueError: if there is nothing to fit on, or fewer than two images to score.
    """
    num_fit = num_heldout // 3 if num_fit is None else num_fit
    if not 0 < num_fit <= num_heldout - 2:
        raise ValueError(
            f"num_fit = {num_fit} of num_heldout = {num_heldout}; one image to fit and two to score is least"
        )
    return num_heldout - num_fit


def spread_of(curve: Curve) -> float:
    """Standard deviation over images of a measured curve's largest rise, as a fraction of its height.

    Raises:
        ValueError: if the curve has no height: the probe knows nothing at low noise.
    """
    pooled, mean = low_end(curve), np.array(curve.score.mean)
    height = mean[:pooled].mean()
    if height <= 0:
        raise ValueError(
            f"the curve of {curve.layer!r} has height {height:.3g} at low noise; the spread needs one above 0"
        )
    contrast = np.zeros(len(mean))
    contrast[:pooled] = -1 / pooled
    contrast[pooled + int(mean[pooled:-1].argmax())] = 1
    return float((contrast @ np.array(curve.score.covariance) @ contrast * curve.num_images) ** 0.5 / height)


def _verdict_critical_value(plan: Plan, num_images: int) -> float:
    """Of `judge`, for the rises at all levels, the highest too; they share the low end, half of their variance."""
    num_levels = plan.num_interior + 1
    covariance = (np.ones((num_levels, num_levels)) + np.eye(num_levels)) / 2
    return critical_value(covariance, confidence=CONFIDENCE, degrees=num_images - 1)


def _power(effect: float, critical: float, num_images: int) -> float:
    """Probability that the studentized mean of M values is above `critical`; `effect` is mean / deviation."""
    shift, scale = _normal_terms(critical, num_images)
    return float(norm.cdf((effect * num_images**0.5 - shift) / scale))


def _normal_terms(critical: float, num_images: int) -> tuple[float, float]:
    """The non-central t as a normal distribution: Abramowitz and Stegun, 26.7.10."""
    freedom = num_images - 1
    return critical * (1 - 1 / (4 * freedom)), (1 + critical**2 / (2 * freedom)) ** 0.5


def _student_isf(error: float, num_images: int) -> float:
    if num_images < 2:
        raise ValueError(f"num_images = {num_images}; a spread over images needs two or more")
    return float(student.isf(error, num_images - 1))
