"""Noise levels against the paper's, and noise against the standard normal distribution."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from unimodal_monitor.forward.noise import karras_sigmas, log_sigmas, paper_sigmas, unit_noise

PAPER = [0.002, 0.008, 0.023, 0.060, 0.140, 0.296, 0.585, 1.088, 1.923]
SHAPE = (3, 8, 8)


def test_paper_grid_is_that_of_the_paper():
    """Appendix B prints the nine levels to three digits, for data of standard deviation 0.5."""
    assert [round(sigma, 3) for sigma in paper_sigmas(0.5).tolist()] == PAPER


def test_paper_grid_scales_with_the_data():
    """A level is a fraction of the data's standard deviation."""
    torch.testing.assert_close(paper_sigmas(1.25), 2.5 * paper_sigmas(0.5))


def test_karras_grid_spaces_the_roots_evenly():
    """Equation 5 of Karras et al., written with a loop and from high to low as there."""
    num, low, high, rho = 7, 0.01, 10.0, 5.0
    expected = [(high ** (1 / rho) + i / (num - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(num)]
    found = karras_sigmas(num, sigma_min=low, sigma_max=high, rho=rho)
    np.testing.assert_allclose(found, expected[::-1])


def test_log_grid_has_a_constant_ratio():
    """Evenly spaced in log sigma, ends included."""
    sigmas = log_sigmas(5, sigma_min=0.01, sigma_max=1.0)
    np.testing.assert_allclose(sigmas, np.geomspace(0.01, 1.0, 5))


@pytest.mark.parametrize("grid", [karras_sigmas, log_sigmas])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num": 2}, "num = 2"),
        ({"num": 5, "sigma_min": 0.0}, "got 0.0 and"),
        ({"num": 5, "sigma_min": 1.0, "sigma_max": 1.0}, "got 1.0 and 1.0"),
        ({"num": 5, "sigma_max": float("inf")}, "and inf"),
        ({"num": 5, "sigma_min": float("nan")}, "got nan"),
    ],
)
def test_a_grid_that_is_none_is_refused(grid, arguments, message):
    """The error names what came."""
    with pytest.raises(ValueError, match=message):
        grid(**arguments)


def test_noise_belongs_to_the_image_and_not_to_the_batch():
    """Any batching and any order of the images gives every image its own noise."""
    whole = unit_noise(range(10), SHAPE, draw=0, seed=3)
    parts = torch.cat([unit_noise(range(3), SHAPE, draw=0, seed=3), unit_noise(range(3, 10), SHAPE, draw=0, seed=3)])
    order = [7, 2, 9]
    assert torch.equal(parts, whole)
    assert torch.equal(unit_noise(order, SHAPE, draw=0, seed=3), whole[order])


@pytest.mark.parametrize("other", [{"draw": 1, "seed": 3}, {"draw": 0, "seed": 4}])
def test_noise_changes_with_draw_and_seed(other):
    """Another draw or another seed shares no value."""
    assert not (unit_noise([5], SHAPE, draw=0, seed=3) == unit_noise([5], SHAPE, **other)).any()


def test_noise_leaves_the_global_generators_alone():
    """It neither reads nor moves them."""
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = unit_noise([0, 1], SHAPE, draw=0, seed=0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    torch.manual_seed(1)
    assert torch.equal(unit_noise([0, 1], SHAPE, draw=0, seed=0), first)


def test_noise_is_standard_normal():
    """Mean, variance and Kolmogorov-Smirnov, on two hundred thousand values."""
    values = unit_noise(range(1000), SHAPE, draw=0, seed=0).flatten().double().numpy()
    assert abs(values.mean()) < 4 / len(values) ** 0.5
    assert abs(values.var() - 1) < 4 * (2 / len(values)) ** 0.5
    assert kstest(values, "norm").pvalue > 0.001


def test_noises_of_images_and_draws_are_uncorrelated():
    """Neighbouring images, draws and seeds: all pairs stay within five standard errors."""
    rows = [unit_noise(range(8), (4000,), draw=draw, seed=seed) for draw in range(3) for seed in range(2)]
    correlation = np.corrcoef(torch.cat(rows).numpy())
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 5 / 4000**0.5
