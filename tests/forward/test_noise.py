"""Noise levels against the paper's, and noise against the standard normal distribution."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import nn

from unimodal_monitor import EDMDenoiser
from unimodal_monitor.forward.noise import karras_sigmas, noise_levels, paper_sigmas, unit_noise

PAPER = [0.002, 0.008, 0.023, 0.060, 0.140, 0.296, 0.585, 1.088, 1.923]
SHAPE = (3, 8, 8)


def test_the_levels_are_the_papers_in_standard_deviations_of_the_data_unless_others_are_asked_for():
    """Appendix B prints the nine levels to three digits, for data of standard deviation 0.5."""
    assert [round(sigma, 3) for sigma in paper_sigmas(0.5).tolist()] == PAPER
    torch.testing.assert_close(paper_sigmas(1.25), 2.5 * paper_sigmas(0.5))
    denoiser = EDMDenoiser(nn.Identity())
    assert torch.equal(noise_levels(denoiser, 0.7, None)[0], paper_sigmas(0.7))
    assert noise_levels(denoiser, 0.7, [0.1, 0.2, 0.5, 0.9])[0].tolist() == [0.1, 0.2, 0.5, 0.9]


def test_karras_grid_spaces_the_roots_evenly():
    """Equation 5 of Karras et al., written with a loop and from high to low as there."""
    num, low, high, rho = 7, 0.01, 10.0, 5.0
    expected = [(high ** (1 / rho) + i / (num - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(num)]
    found = karras_sigmas(num, sigma_min=low, sigma_max=high, rho=rho)
    np.testing.assert_allclose(found, expected[::-1])


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
def test_a_grid_that_is_none_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        karras_sigmas(**arguments)


@pytest.mark.parametrize("sigmas", [[0.2, 0.1], [0.1, 0.1], [0.0, 0.1], [0.1, np.inf], [np.nan, 0.1], [[0.1, 0.2]]])
def test_levels_that_do_not_ascend_from_above_zero_are_refused(sigmas):
    with pytest.raises(ValueError, match="sigmas must be positive and ascending"):
        noise_levels(EDMDenoiser(nn.Identity()), 0.5, sigmas)


def test_levels_out_of_reach_are_dropped_and_four_must_be_left():
    """A low-noise end, two levels of an interior, and one beyond it; here up to a network's `sigma_max`."""
    denoiser, wanted = EDMDenoiser(nn.Identity()), paper_sigmas(0.5)
    denoiser.network.sigma_max = 0.1
    levels, num_unreachable = noise_levels(denoiser, 0.5, None)
    assert torch.equal(levels, wanted[:4])
    assert num_unreachable == 5
    denoiser.network.sigma_max = 0.05
    with pytest.raises(ValueError, match="needs at least 4 levels, and the schedule can express 3"):
        noise_levels(denoiser, 0.5, wanted)


def test_noise_belongs_to_the_image_alone():
    """Whatever the batches, the order and the states of the global generators, which stay as they are."""
    whole = unit_noise(range(10), SHAPE, seed=3)
    torch.manual_seed(1), np.random.seed(1)
    states = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()
    parts = torch.cat([unit_noise(range(3), SHAPE, seed=3), unit_noise(range(3, 10), SHAPE, seed=3)])
    order = [7, 2, 9]
    assert torch.equal(parts, whole)
    assert torch.equal(unit_noise(order, SHAPE, seed=3), whole[order])
    assert states == (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())


def test_noise_is_standard_normal():
    """Mean, variance and Kolmogorov-Smirnov, on two hundred thousand values."""
    values = unit_noise(range(1000), SHAPE, seed=0).flatten().double().numpy()
    assert abs(values.mean()) < 4 / len(values) ** 0.5
    assert abs(values.var() - 1) < 4 * (2 / len(values)) ** 0.5
    assert kstest(values, "norm").pvalue > 0.001


def test_noises_of_images_are_uncorrelated():
    """Neighbouring images and seeds, and images whose numbers are far apart: all pairs within five standard errors."""
    rows = [unit_noise([*range(8), 10**9, 10**9 + 1], (4000,), seed=seed) for seed in range(3)]
    correlation = np.corrcoef(torch.cat(rows).numpy())
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 5 / 4000**0.5
