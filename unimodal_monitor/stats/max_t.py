"""The statistics of a curve: every rise over the low-noise end, with limits that hold for all levels at once."""

from dataclasses import dataclass

import numpy as np

from unimodal_monitor.stats.estimate import Curve, Estimate

LOW_END = 0.02
"""Levels up to this fraction of the data's standard deviation hardly differ from clean data; they are pooled."""

NUM_DRAWS = 20_000
SEED = 0


@dataclass(frozen=True)
class Rises:
    """How much higher the curve is at each level than at its low-noise end.

    Args:
        levels: indices of the levels above the low end, ascending.
        rise: of each of them, in units of the quantity.
        lower: simultaneous lower confidence limits.
        upper: simultaneous upper confidence limits.
        p_value: probability of a largest studentized rise like this, or larger, where all levels are alike.
    """

    levels: tuple[int, ...]
    rise: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    p_value: float


def low_end(curve: Curve) -> int:
    """Number of levels that make the low-noise end: one at least, and never so many that no interior is left."""
    pooled = sum(sigma <= LOW_END * curve.data_std for sigma in curve.sigmas)
    return max(1, min(pooled, len(curve.sigmas) - 2))


def rises(curve: Curve, estimate: Estimate, *, confidence: float) -> Rises:
    """All rises over the low end, from paired differences on the same images.

    The limits are rise +- c * error, where c is the `confidence` quantile of the largest absolute studentized
    error over all levels (max-T). They hold for all levels together, so the peak may be chosen by looking. The
    quantile comes from draws of the joint normal distribution with the images' covariance: a Gaussian multiplier
    bootstrap over the images has exactly this distribution, and costs an image-by-image product for each draw.

    Args:
        curve: where the levels are.
        estimate: the quantity to compare, of this curve.
        confidence: of all limits together, such as 0.95.

    Source: Hothorn, Bretz and Westfall 2008, Simultaneous inference in general parametric models.
    """
    pooled = low_end(curve)
    levels = np.arange(pooled, len(curve.sigmas))
    contrast = np.zeros((len(levels), len(curve.sigmas)))
    contrast[:, :pooled] = -1 / pooled
    contrast[np.arange(len(levels)), levels] = 1
    difference = contrast @ np.array(estimate.mean)
    covariance = contrast @ np.array(estimate.covariance) @ contrast.T
    errors = np.sqrt(np.clip(covariance.diagonal(), 0, None))
    draws = studentized_draws(covariance, degrees=curve.num_images - 1)
    margin = _largest_quantile(draws, confidence) * errors
    largest = (difference / np.maximum(errors, 1e-300)).max()
    p_value = (1 + (draws.max(1) >= largest).sum()) / (1 + len(draws))
    return Rises(tuple(levels.tolist()), difference, difference - margin, difference + margin, float(p_value))


def critical_value(covariance: np.ndarray, *, confidence: float, degrees: int) -> float:
    """What the largest absolute of K studentized variables stays under with probability `confidence`.

    Args:
        covariance: (K, K), estimated.
        confidence: 0 to 1.
        degrees: of freedom of the estimate, the number of images less one.
    """
    return _largest_quantile(studentized_draws(covariance, degrees=degrees), confidence)


def studentized_draws(covariance: np.ndarray, *, degrees: int) -> np.ndarray:
    """(NUM_DRAWS, K) draws of K jointly normal variables of unit variance over a common estimate of their deviation.

    Args:
        covariance: (K, K), estimated; a variable without variance is left out.
        degrees: of freedom of the estimate, the number of images less one.

    Returns:
        draws of the multivariate t distribution; all 0 if no variable varies.
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
    return normal @ (vectors * np.sqrt(np.clip(values, 0, None))).T / deviation


def _largest_quantile(draws: np.ndarray, confidence: float) -> float:
    return float(np.quantile(np.abs(draws).max(1), confidence))
