"""Simultaneous limits of all rises."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm, t
from simulated import HUMPED, SIGMAS, STD, simulated_curve

from unimodal_monitor.stats.estimate import Curve, LevelMeans
from unimodal_monitor.stats.max_t import critical_value, low_end, rises

MANY = 10**6
CONTRAST = np.eye(9)[2:] - np.eye(9)[:2].mean(0)
COVARIANCE = 0.6 + 0.4 * np.eye(9)
SIDAK = norm.ppf((1 + 0.95 ** (1 / 7)) / 2)


@pytest.mark.parametrize(
    ("covariance", "degrees", "expected"),
    [
        (np.eye(1), MANY, norm.ppf(0.975)),
        (np.eye(1), 9, t.ppf(0.975, 9)),
        (np.diag(np.arange(1.0, 8.0)), MANY, SIDAK),
        (np.outer([1, 1, 1, 0], [1, 1, 1, 0]), MANY, norm.ppf(0.975)),
        (np.zeros((4, 4)), MANY, 0.0),
    ],
)
def test_the_critical_value_is_the_normal_quantile_or_students_or_sidaks(covariance, degrees, expected):
    """Perfectly correlated levels are one comparison, and a level without variance is none."""
    assert critical_value(covariance, confidence=0.95, degrees=degrees) == pytest.approx(expected, abs=0.07)


def test_a_rise_is_the_paired_difference_over_the_low_end():
    """.002 and .008 are under 2 % of the data's standard deviation, .023 is not."""
    curve = simulated_curve(HUMPED)
    found = rises(curve, curve.score, confidence=0.95)
    covariance = CONTRAST @ np.array(curve.score.covariance) @ CONTRAST.T
    critical = critical_value(covariance, confidence=0.95, degrees=curve.num_images - 1)
    half_widths = critical * np.sqrt(np.diagonal(covariance))
    assert (low_end(curve), found.levels) == (2, (2, 3, 4, 5, 6, 7, 8))
    np.testing.assert_allclose(found.rise, CONTRAST @ curve.score.mean)
    np.testing.assert_allclose([found.lower, found.upper], [found.rise - half_widths, found.rise + half_widths])


def test_limits_cover_all_levels_together_as_often_as_promised():
    """2,000 experiments with correlated levels: 95 % for the simultaneous limits, clearly less for pointwise ones."""
    generator, covariance = np.random.default_rng(0), 1e-4 * COVARIANCE
    critical = critical_value(CONTRAST @ COVARIANCE @ CONTRAST.T, confidence=0.95, degrees=99)
    measured = generator.multivariate_normal(HUMPED, covariance, size=2000)
    off = np.abs((measured - HUMPED) @ CONTRAST.T)
    means = LevelMeans("score", HUMPED, tuple(map(tuple, covariance)))
    found = rises(Curve("layer", tuple(SIGMAS.tolist()), STD, 100, means, means), means, confidence=0.95)
    half = found.upper - found.rise
    assert 0.935 <= (off <= half).all(1).mean() <= 0.97
    assert (off <= half * 1.96 / critical).all(1).mean() < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("num_images", [40, 400])
def test_p_values_of_permuted_levels_are_uniform(num_images):
    """Permuting every image's levels leaves no rise, and skewed values that correlate."""
    generator = np.random.default_rng(3)
    values_KN = generator.exponential(size=(9, num_images)) + 2 * generator.exponential(size=num_images)
    found = []
    for _ in range(500):
        permuted_KN = torch.from_numpy(generator.permuted(values_KN, axis=0))
        curve = Curve.from_images("layer", SIGMAS, STD, score_KN=permuted_KN, score_name="score")
        found.append(rises(curve, curve.score, confidence=0.95).p_value)
    assert kstest(found, "uniform").pvalue > 0.01
