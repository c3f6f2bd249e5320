"""Simultaneous limits of all rises."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm, t
from simulated import FALLING, HUMPED, SIGMAS, STD, simulated_curve

from unimodal_monitor.stats.estimate import Curve, Estimate
from unimodal_monitor.stats.max_t import critical_value, low_end, rises

MANY = 10**6


def test_one_variable_has_the_normal_quantile():
    """1.96 at 95 %, within the error of the draws."""
    assert critical_value(np.array([[4.0]]), confidence=0.95, degrees=MANY) == pytest.approx(norm.ppf(0.975), abs=0.05)


def test_few_images_have_students_quantile():
    """2.26 with ten of them, within the error of the draws."""
    assert critical_value(np.array([[4.0]]), confidence=0.95, degrees=9) == pytest.approx(t.ppf(0.975, 9), abs=0.07)


def test_independent_variables_have_sidaks_value():
    """Seven of them at 95 %."""
    expected = norm.ppf((1 + 0.95 ** (1 / 7)) / 2)
    assert critical_value(np.diag(np.arange(1.0, 8.0)), confidence=0.95, degrees=MANY) == pytest.approx(
        expected, abs=0.05
    )


def test_variables_that_are_one_cost_nothing():
    """Perfectly correlated levels are one look, and a level without variance is none."""
    covariance = np.zeros((4, 4))
    covariance[:3, :3] = 1.0
    assert critical_value(covariance, confidence=0.95, degrees=MANY) == pytest.approx(1.96, abs=0.05)


def test_the_two_lowest_of_the_papers_levels_are_pooled():
    """.002 and .008 are under 2 % of the data's standard deviation, .023 is not."""
    assert low_end(simulated_curve(FALLING)) == 2


def test_a_rise_is_the_paired_difference_over_the_low_end():
    """Its error is that of the differences image by image."""
    curve = simulated_curve(HUMPED)
    found = rises(curve, curve.score, confidence=0.95)
    mean, covariance = np.array(curve.score.mean), np.array(curve.score.covariance)
    contrast = np.zeros(9)
    contrast[[0, 1, 5]] = -0.5, -0.5, 1
    assert found.levels[3] == 5
    assert found.rise[3] == pytest.approx(contrast @ mean)
    half_widths = (found.upper - found.rise) / np.sqrt(contrast @ covariance @ contrast)
    assert half_widths[3] == pytest.approx(critical_value_of(curve))


def critical_value_of(curve):
    contrast = np.eye(9)[2:] - np.array([0.5, 0.5, 0, 0, 0, 0, 0, 0, 0])
    covariance = contrast @ np.array(curve.score.covariance) @ contrast.T
    return critical_value(covariance, confidence=0.95, degrees=curve.num_images - 1)


def test_limits_cover_all_levels_together_as_often_as_promised():
    """2,000 experiments with correlated levels: 95 % for the simultaneous limits, clearly less for pointwise ones."""
    generator = np.random.default_rng(0)
    covariance = 1e-4 * (0.6 + 0.4 * np.eye(9))
    truth, root = np.array(HUMPED), np.linalg.cholesky(covariance)
    rise = truth[2:] - truth[:2].mean()
    simultaneous = pointwise = 0
    for _ in range(2000):
        measured = truth + root @ generator.standard_normal(9)
        estimate = Estimate("score", tuple(measured), tuple(map(tuple, covariance)))
        found = rises(Curve("layer", tuple(SIGMAS.tolist()), STD, 100, estimate, estimate), estimate, confidence=0.95)
        off = np.abs(found.rise - rise)
        half = found.upper - found.rise
        simultaneous += bool((off <= half).all())
        pointwise += bool((off <= half * 1.96 / CRITICAL).all())
    assert 0.935 <= simultaneous / 2000 <= 0.965
    assert pointwise / 2000 < 0.9


@pytest.mark.parametrize("num_images", [40, 400])
def test_p_values_of_permuted_levels_are_uniform(num_images):
    """Permuting every image's levels leaves no rise, and skewed values that correlate."""
    generator = np.random.default_rng(3)
    values_KM = generator.exponential(size=(9, num_images)) + 2 * generator.exponential(size=num_images)
    found = []
    for _ in range(500):
        permuted = torch.from_numpy(generator.permuted(values_KM, axis=0)).unsqueeze(1)
        estimate = Estimate.from_images("score", permuted)
        curve = Curve("layer", tuple(SIGMAS.tolist()), STD, num_images, estimate, estimate)
        found.append(rises(curve, estimate, confidence=0.95).p_value)
    assert kstest(found, "uniform").pvalue > 0.01


CRITICAL = critical_value(
    (np.eye(9)[2:] - np.eye(9)[:2].mean(0)) @ (0.6 + 0.4 * np.eye(9)) @ (np.eye(9)[2:] - np.eye(9)[:2].mean(0)).T,
    confidence=0.95,
    degrees=MANY,
)
