"""Power analysis: the rises that a probe set of some size can show, before any image is collected."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import nct, t

from unimodal_monitor.alarm.alarm import Alarm, share_of_check
from unimodal_monitor.alarm.losses import RiseLost
from unimodal_monitor.alarm.rules import GapOpened
from unimodal_monitor.stats.estimate import Curve
from unimodal_monitor.stats.max_t import critical_value, low_end
from unimodal_monitor.stats.verdict import MIN_RISE

RISES = (0.01, 0.02, 0.03, 0.04, 0.06, 0.10, 0.20)
SPREAD = 0.45  # measured on CIFAR-10 with the ridge probe, as is `Plan.spread_when_lost`
RULE, NUM_INTERIOR = RiseLost(), 6  # the levels it tests: between the low-noise end and the highest
SHARE = (confirmed := GapOpened.confirmed()).share / len(confirmed.losses)  # of the alarm's significance
WANTED_POWER = 0.8
CONFIDENCE = 0.95  # of `judge`


@dataclass(frozen=True)
class PowerRow:
    """Probabilities at one check, for a rise of some size."""

    rise: float  # as a share of the curve's height, its value at the low-noise end
    unimodal: float  # the verdict is UNIMODAL
    significant: float  # the alarm's rule finds the rise significant and takes it as its reference
    lost: float  # the rule is triggered, if the rise of the reference has vanished entirely


@dataclass(frozen=True)
class Plan:
    """A planned run and what is assumed of it."""

    num_checks: int  # also `planned_checks` of its alarm; power is that of the middle check
    spread: float = SPREAD  # standard deviation of the rise over images, as a share of the curve's height
    spread_when_lost: float = 0.2  # the same after the rise is lost, when levels are more alike
    correlation: float = 0.3  # of an image's rise between two checks

    def __post_init__(self) -> None:
        if self.num_checks < 1:
            raise ValueError(f"need at least 1 check, got num_checks = {self.num_checks}")
        if not (0 < self.spread < np.inf and 0 < self.spread_when_lost < np.inf):
            raise ValueError(f"need positive spreads, got {self.spread} and {self.spread_when_lost}")
        if not -1 <= self.correlation <= 1:
            raise ValueError(f"need a correlation in [-1, 1], got {self.correlation}")

    @property
    def middle(self) -> int:
        """Number of the middle check, at least 2: at the first one nothing can be lost."""
        return max(2, (self.num_checks + 1) // 2)

    @property
    def alpha(self) -> float:
        """Type-I error at that check of each of the rule's two tests, see `RiseLost`."""
        return Alarm.significance * share_of_check(self.middle, planned=self.num_checks) * SHARE / 2


def power_table(num_images: int, plan: Plan, *, rises: Sequence[float] = RISES) -> list[PowerRow]:
    """Power of the verdict and of the alarm for rises of some sizes, as shares of the curve's height.

    One level has the rise and all others are clearly lower. When it is lost, one level remains at the height of the
    low-noise end. With a plateau of several levels, the rise is significant a little sooner and lost a little later.
    """
    lost = _student_isf(plan.alpha / (NUM_INTERIOR * (plan.middle - 1)), num_images)
    # rises of all levels, the highest too, share the low-noise end and with it half of their variance
    covariance = (1 + np.eye(NUM_INTERIOR + 1)) / 2
    unimodal = critical_value(covariance, confidence=CONFIDENCE, degrees=num_images - 1)
    before, after = RULE.lost_fraction * plan.spread, plan.spread_when_lost
    change_spread = (before**2 + after**2 - 2 * plan.correlation * before * after) ** 0.5
    return [
        PowerRow(
            rise,
            unimodal=_power((rise - MIN_RISE) / plan.spread, unimodal, num_images),
            significant=_power_of_rule(rise, num_images, plan),
            lost=_power(RULE.lost_fraction * rise / change_spread, lost, num_images),
        )
        for rise in rises
    ]


def smallest_rise(num_images: int, plan: Plan) -> float:
    """Rise that is significant at one check with 80 % probability, as a share of the curve's height."""
    high = plan.spread
    while _power_of_rule(high, num_images, plan) < WANTED_POWER:
        high *= 2
    return float(brentq(lambda rise: _power_of_rule(rise, num_images, plan) - WANTED_POWER, 0, high))


def images_needed(rise: float, plan: Plan) -> int:
    """Fewest scored images with which a rise is significant at one check with 80 % probability; at most a billion."""
    numbers = range(2, 10**9)
    needed = bisect_left(numbers, WANTED_POWER, key=lambda num_images: _power_of_rule(rise, num_images, plan))
    if needed == len(numbers):
        raise ValueError(f"need a rise well over min_rise = {RULE.min_rise}, got {rise}")
    return numbers[needed]


def scored_images(num_heldout: int, num_fit: int | None = None) -> int:
    """Number of held-out images that remain after fitting the probe; `num_fit` as in `ProbeSet.from_datasets`."""
    num_fit = num_heldout // 3 if num_fit is None else num_fit
    if not 0 < num_fit <= num_heldout - 2:
        raise ValueError(f"need an image to fit and two to score, got num_fit = {num_fit} of {num_heldout} held-out")
    return num_heldout - num_fit


def spread_of(curve: Curve) -> float:
    """Standard deviation over images of the largest rise of a measured curve, as a share of the curve's height."""
    pooled, mean = low_end(curve), np.array(curve.score.mean)
    height = mean[:pooled].mean()
    if height <= 0:
        raise ValueError(f"need a positive height at low noise, got {height:.3g} for the curve of {curve.layer!r}")
    contrast = np.eye(len(mean))[pooled + int(mean[pooled:-1].argmax())]
    contrast[:pooled] = -1 / pooled
    return float((contrast @ np.array(curve.score.covariance) @ contrast * curve.num_images) ** 0.5 / height)


def _power_of_rule(rise: float, num_images: int, plan: Plan) -> float:
    """Probability that the rule finds the rise significant at the middle check."""
    critical = _student_isf(plan.alpha / NUM_INTERIOR, num_images)
    return _power((rise - RULE.min_rise) / plan.spread, critical, num_images)


def _power(effect: float, critical: float, num_images: int) -> float:
    """Probability that the t statistic of M values exceeds `critical`; `effect` is their mean / standard deviation."""
    return float(nct.sf(critical, num_images - 1, effect * num_images**0.5))


def _student_isf(alpha: float, num_images: int) -> float:
    if num_images < 2:
        raise ValueError(f"need at least 2 images, got {num_images}")
    return float(t.isf(alpha, num_images - 1))
