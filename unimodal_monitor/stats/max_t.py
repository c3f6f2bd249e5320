"""Rises of a curve over its low-noise end, with limits that hold for all levels simultaneously (max-T)."""

from typing import Any, NamedTuple

import numpy as np

from unimodal_monitor.stats.estimate import Curve, LevelMeans

LOW_END = 0.02
"""Levels up to this fraction of the data's standard deviation hardly differ from clean data; they are pooled."""
NUM_DRAWS = 20_000
SEED = 0


class Rises(NamedTuple):
    """How much higher the curve is at each level above its low-noise end, in units of the quantity.

    The p-value is that of the largest studentized rise where all levels have one mean.
    """

    levels: tuple[int, ...]
    rise: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    p_value: float


def low_end(levels: Any) -> int:
    """Number of levels that make the low-noise end of a `Curve` or of `Measured`: at least one; two others remain."""
    limit: float = LOW_END * levels.data_std
    pooled = sum(float(sigma) <= limit for sigma in levels.sigmas)
    return max(1, min(pooled, len(levels.sigmas) - 2))


def rises(curve: Curve, means: LevelMeans, *, confidence: float) -> Rises:
    """All rises of the curve's accuracy or score over its low-noise end, paired image by image.

    The limits are rise +- c * error, where c is the `confidence` quantile of the largest absolute studentized error
    over all levels. They hold for all levels together, so that the peak may be chosen after the fact.

    Source: Hothorn, Bretz and Westfall 2008, Simultaneous inference in general parametric models.
    """
    pooled, num_levels = low_end(curve), len(curve.sigmas)
    contrast = np.eye(num_levels)[pooled:]
    contrast[:, :pooled] = -1 / pooled
    rise = contrast @ np.array(means.mean)
    covariance = contrast @ np.array(means.covariance) @ contrast.T
    errors = np.sqrt(np.clip(covariance.diagonal(), 0, None))
    draws = studentized_draws(covariance, degrees=curve.num_images - 1)
    margin = np.quantile(np.abs(draws).max(1), confidence) * errors
    largest = (rise / np.maximum(errors, 1e-300)).max()
    p_value = (1 + (draws.max(1) >= largest).sum()) / (1 + len(draws))
    return Rises(tuple(range(pooled, num_levels)), rise, rise - margin, rise + margin, float(p_value))


def critical_value(covariance: np.ndarray, *, confidence: float, degrees: int) -> float:
    """The `confidence` quantile of the largest absolute of K studentized variables.

    `degrees` are the degrees of freedom of the (K, K) estimated covariance: the number of images less one.
    """
    return float(np.quantile(np.abs(studentized_draws(covariance, degrees=degrees)).max(1), confidence))


def studentized_draws(covariance: np.ndarray, *, degrees: int) -> np.ndarray:
    """(NUM_DRAWS, K) draws of the multivariate t distribution with the correlations of `covariance`.

    Variables without variance are left out; all draws are 0 if none varies.
    """
    errors = np.sqrt(np.clip(covariance.diagonal(), 0, None))
    varies = errors > 1e-12 * max(errors.max(initial=0), 1e-300)
    if not varies.any():
        return np.zeros((NUM_DRAWS, 1))
    correlation = covariance[np.ix_(varies, varies)] / np.outer(errors[varies], errors[varies])
    values, vectors = np.linalg.eigh(correlation)
    generator = np.random.default_rng(SEED)
    normal = generator.standard_normal((NUM_DRAWS, len(values)))
    deviation = np.sqrt(generator.chisquare(degrees, size=(NUM_DRAWS, 1)) / degrees)
    return np.asarray(normal @ (vectors * np.sqrt(np.clip(values, 0, None))).T / deviation)
