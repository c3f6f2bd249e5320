"""ICR against direct formulas, brute-force leave-one-out and a Gaussian whose ICR is known."""

import numpy as np
import pytest
import torch

from unimodal_monitor.signals.invariance import RIDGE, invariance, invariance_values, pseudo_values
from unimodal_monitor.signals.measured import Measured
from unimodal_monitor.stats.paired import p_value_all_below


def gaussian_views(num, width, *, ratio, seed):
    """Signal variances around `ratio` times the noise's, and both mixed by one matrix: true ICR 1 / (1 + ratio)."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.2, 1.8, width, dtype=torch.float64)
    mix = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64)).Q * (spread + 0.5)
    signal = torch.randn(num, width, generator=generator, dtype=torch.float64) * (ratio * spread).sqrt()
    noise = torch.randn(2, num, width, generator=generator, dtype=torch.float64)
    return ((signal + noise) @ mix).unbind(0)


def values_of(first, second):
    return invariance_values(first[None], second[None])[0]


def direct(first, second, *, ridge=0.0, is_corrected=False):
    """1 - ICR straight from the definition with NumPy; `ridge` absolute."""
    n, d = first.shape
    noise = np.atleast_2d(np.cov((first - second).T)) / 2
    signal = np.atleast_2d(np.cov(((first + second) / 2).T)) - noise / 2
    inverse = np.linalg.inv(noise + ridge * np.eye(d))
    factor = (n - d - 2) / (n - 1) if is_corrected else 1.0
    trace = factor * np.trace(inverse @ (signal + noise / 2)) - np.trace(inverse @ noise) / 2
    return trace / d / (1 + trace / d)


@pytest.mark.parametrize(("num", "width"), [(40, 5), (12, 8), (8, 8), (9, 20)])
def test_pseudo_values_are_those_of_brute_force_leave_one_out(num, width):
    """With images plenty, scarce, and fewer than features."""
    first, second = (view.numpy() for view in gaussian_views(num, width, ratio=2.0, seed=num))
    options = {"is_corrected": num > width + 3, "ridge": RIDGE * np.trace(np.cov((first - second).T) / 2) / width}
    rests = [np.arange(num) != image for image in range(num)]
    whole = direct(first, second, **options)
    expected = [num * whole - (num - 1) * direct(first[rest], second[rest], **options) for rest in rests]
    found = pseudo_values(torch.from_numpy(first), torch.from_numpy(second))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("unit", "width"), [(1e-6, 6), (1e6, 60)])
def test_the_scale_of_the_features_does_not_matter(unit, width):
    """Neither a common unit nor one for each feature, also where they are projected to random directions."""
    first, second = gaussian_views(100, width, ratio=2.0, seed=0)
    scale = unit * torch.logspace(-3, 3, width, dtype=torch.float64)
    expected, found = values_of(first, second), values_of(scale * first + unit, scale * second + unit)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("images_per_feature", "plug_in_bias", "tolerance"),
    [(2, -0.19, 0.015), (5, -0.07, 0.005), (10, -0.035, 0.004), (50, -0.007, 0.002)],
)
def test_little_bias_remains_for_gaussian_features(images_per_feature, plug_in_bias, tolerance):
    """Mean of a few estimates of an ICR of 0.4 from 32 features, against the plug-in of the paper."""
    found, plug_in, num_seeds = [], [], 60 // images_per_feature + 6
    for seed in range(num_seeds):
        first, second = gaussian_views(32 * images_per_feature, 32, ratio=1.5, seed=seed)
        found.append(1 - float(pseudo_values(first, second).mean()))
        plug_in.append(1 - direct(first.numpy(), second.numpy()))
    assert np.mean(found) == pytest.approx(0.4, abs=tolerance + 3 * np.std(found) / num_seeds**0.5)
    assert np.mean(plug_in) - 0.4 == pytest.approx(plug_in_bias, rel=0.3)


def test_the_limits_cover_the_truth():
    """In 95 % of 200 experiments, as many levels; the jackknife is a little on the safe side."""
    views = zip(*(gaussian_views(120, 6, ratio=1.5, seed=seed) for seed in range(200)), strict=True)
    values_KN, *numbers = invariance_values(*map(torch.stack, views))
    found = invariance(Measured(torch.arange(200.0), 0.5, ("mid",), "gain", invariance=values_KN))
    covered = [low <= 0.6 <= high for low, high in zip(found.low, found.high, strict=True)]
    assert 0.91 <= np.mean(covered) <= 0.99
    assert numbers == [6, 6]


@pytest.mark.parametrize(
    ("num", "directions", "words"),
    [(3, 1, "1 random"), (60, 15, "15 random directions of 20"), (80, 20, "of 20 features"), (200, 20, "")],
)
def test_wide_features_are_measured_in_as_many_directions_as_the_images_allow(num, directions, words):
    """With less than ten images for each, a note tells how many are needed. A constant feature is left out."""
    first, second = gaussian_views(num, 20, ratio=2.0, seed=0)
    constant = torch.full((num, 3), 3.0, dtype=torch.float64)
    found, *numbers = invariance_values(*(torch.cat([constant, view], 1)[None] for view in (first, second)))
    assert numbers == [20, directions]
    assert found.isfinite().all()
    if directions == 20:
        torch.testing.assert_close(found, values_of(first, second))
    options = {"invariance": found, "num_features": 20, "num_directions": directions}
    note = invariance(Measured(torch.ones(1), 0.5, ("mid",), "gain", **options)).note
    assert words in note
    assert ("need 200 images" in note) is bool(words)


@pytest.mark.slow
@pytest.mark.parametrize(("num", "width", "uneven"), [(60, 64, 0.0), (100, 256, 0.0), (64, 64, 0.0), (100, 256, 0.5)])
def test_a_wide_layer_that_did_not_change_rarely_has_a_significant_fall(num, width, uneven):
    """100 pairs of checks of the same truth: at an error of 5 % no more than 12 falls, which chance gives once in 500.

    `uneven` is the standard deviation of the logarithm of the size of the noise, image by image, at both checks.
    """
    generator, falls = torch.Generator().manual_seed(0), 0
    for _ in range(100):
        signal, *noise = torch.randn(5, num, width, generator=generator, dtype=torch.float64)
        size_N1 = (uneven * torch.randn(num, 1, generator=generator, dtype=torch.float64)).exp()
        views = [signal + size_N1 * view for view in noise]
        turned = torch.randn(width, width, generator=generator, dtype=torch.float64)
        first, second = values_of(*views[:2]).numpy(), values_of(*(view @ turned for view in views[2:])).numpy()
        falls += p_value_all_below(second, first[0]) < 0.05
    assert falls <= 12


def test_features_without_two_different_views_are_refused():
    (first, second), ones = gaussian_views(50, 4, ratio=1.0, seed=0), torch.ones(50, 4)
    cases = [(first, first, "both views have the same features"), (ones, ones, "all of them are constant")]
    cases += [(first, second[:40], "of one shape"), (first[:2], second[:2], "at least 3 images")]
    for one, other, words in cases:
        with pytest.raises(ValueError, match=words):
            values_of(one, other)
    second[3, 1] = float("inf")
    with pytest.raises(FloatingPointError, match="not finite"):
        values_of(first, second)
