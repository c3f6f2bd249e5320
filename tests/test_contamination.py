"""ICR against direct formulas, brute-force leave-one-out and a Gaussian whose ICR is known; views as pure functions."""

import numpy as np
import pytest
import torch

from unimodal_monitor.signals.contamination import RIDGE, Contamination, pseudo_cleanliness
from unimodal_monitor.signals.views import two_views


def gaussian_views(num, width, *, ratio, seed):
    """Signal variances around `ratio` times the noise's, and both mixed by one matrix: true ICR 1 / (1 + ratio)."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.2, 1.8, width, dtype=torch.float64)
    mix = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64)).Q * (spread + 0.5)
    signal = torch.randn(num, width, generator=generator, dtype=torch.float64) * (ratio * spread).sqrt()
    noise = torch.randn(2, num, width, generator=generator, dtype=torch.float64)
    return ((signal + noise) @ mix).unbind(0)


def icr_of(first, second):
    contamination = Contamination(1)
    contamination.update(first[None], second[None], torch.arange(len(first)))
    return contamination.compute()


def direct_cleanliness(first, second, *, ridge, is_corrected=True):
    """Straight from the definition with NumPy; `ridge` absolute."""
    n, d = first.shape
    noise = np.atleast_2d(np.cov((first - second).T)) / 2
    signal = np.atleast_2d(np.cov(((first + second) / 2).T)) - noise / 2
    inverse = np.linalg.inv(noise + ridge * np.eye(d))
    factor = (n - d - 2) / (n - 1) if is_corrected else 1.0
    trace = factor * np.trace(inverse @ (signal + noise / 2)) - np.trace(inverse @ noise) / 2
    return trace / d / (1 + trace / d)


@pytest.mark.parametrize(("num", "width"), [(40, 5), (12, 8), (8, 8), (9, 20)])
def test_pseudo_values_are_those_of_brute_force_leave_one_out(num, width):
    """Exact, with images plenty, scarce, and fewer than features."""
    first, second = (view.numpy() for view in gaussian_views(num, width, ratio=2.0, seed=num))
    corrected = num > width + 3
    ridge = RIDGE * np.trace(np.cov((first - second).T) / 2) / width
    whole = direct_cleanliness(first, second, ridge=ridge, is_corrected=corrected)
    expected = []
    for image in range(num):
        rest = np.arange(num) != image
        left_out = direct_cleanliness(first[rest], second[rest], ridge=ridge, is_corrected=corrected)
        expected.append(num * whole - (num - 1) * left_out)
    found = pseudo_cleanliness(torch.from_numpy(first), torch.from_numpy(second))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_icr_is_that_of_a_direct_computation_in_double_precision():
    """The plug-in estimate of the paper, up to the corrections, which are small with many images."""
    first, second = gaussian_views(2000, 4, ratio=2.0, seed=0)
    found = float(icr_of(first, second).icr_K)
    plug_in = 1 - direct_cleanliness(first.numpy(), second.numpy(), ridge=0.0, is_corrected=False)
    assert found == pytest.approx(plug_in, abs=2e-3)
    assert found == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_icr_does_not_depend_on_the_scale_of_the_features(unit):
    """Neither on a common unit nor on one for each feature."""
    first, second = gaussian_views(100, 6, ratio=2.0, seed=0)
    scale = unit * torch.logspace(-3, 3, 6, dtype=torch.float64)
    expected, found = icr_of(first, second), icr_of(scale * first + unit, scale * second + unit)
    torch.testing.assert_close(found.cleanliness_KN, expected.cleanliness_KN, rtol=1e-6, atol=1e-6)


def test_dead_features_are_left_out():
    """A constant channel has no noise to divide by."""
    first, second = gaussian_views(100, 6, ratio=2.0, seed=0)
    dead = torch.full((100, 2), 3.0, dtype=torch.float64)
    found = icr_of(torch.cat([first, dead], 1), torch.cat([second, dead], 1))
    torch.testing.assert_close(found.icr_K, icr_of(first, second).icr_K)
    assert found.num_features == 6


@pytest.mark.parametrize(
    ("images_per_feature", "plug_in_bias", "tolerance"),
    [(2, -0.19, 0.015), (5, -0.07, 0.005), (10, -0.035, 0.004), (50, -0.007, 0.002)],
)
def test_little_bias_remains_for_gaussian_features(images_per_feature, plug_in_bias, tolerance):
    """Mean of a few estimates of an ICR of 0.4 from 32 features, against the plug-in of the paper."""
    found, plug_in, num_seeds = [], [], 60 // images_per_feature + 6
    for seed in range(num_seeds):
        first, second = gaussian_views(32 * images_per_feature, 32, ratio=1.5, seed=seed)
        found.append(1 - float(pseudo_cleanliness(first, second).mean()))
        plug_in.append(1 - direct_cleanliness(first.numpy(), second.numpy(), ridge=0.0, is_corrected=False))
    assert np.mean(found) == pytest.approx(0.4, abs=tolerance + 3 * np.std(found) / num_seeds**0.5)
    assert np.mean(plug_in) - 0.4 == pytest.approx(plug_in_bias, rel=0.3)


def test_errors_are_those_of_repeated_draws():
    """The jackknife error against the spread of 200 estimates."""
    found = [icr_of(*gaussian_views(120, 6, ratio=1.5, seed=seed)) for seed in range(200)]
    spread = np.std([float(icr.icr_K) for icr in found])
    assert np.mean([float(icr.error_K) for icr in found]) == pytest.approx(spread, rel=0.15)


def test_few_images_are_said_to_be_biased():
    """Also fewer than features: a finite figure, and the sentence says what would do."""
    few, enough = (icr_of(*gaussian_views(num, 10, ratio=1.5, seed=0)) for num in (8, 100))
    assert few.is_biased
    assert "100 images or more" in few.describe()
    assert few.cleanliness_KN.isfinite().all()
    assert not enough.is_biased
    assert "biased" not in enough.describe()
    assert few.to_dict()["is_biased"] is True


def test_views_without_a_difference_are_refused():
    """They would be free of noise for ever."""
    first, _ = gaussian_views(50, 4, ratio=1.0, seed=0)
    with pytest.raises(ValueError, match="both views have the same features"):
        icr_of(first, first)
    with pytest.raises(ValueError, match="all of them are constant"):
        icr_of(torch.ones(50, 4), torch.ones(50, 4))


def test_a_view_belongs_to_its_image_and_seed_alone():
    """Not to the batch, the order or the global generator, and the two views differ."""
    images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    first, second = two_views(images, seed=1, indices=range(6))
    alone, _ = two_views(images[[4, 2]], seed=1, indices=[4, 2])
    torch.testing.assert_close(alone, first[[4, 2]])
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, second)
    assert not torch.equal(two_views(images, seed=2, indices=range(6))[0], first)


def test_a_view_is_a_shifted_flipped_and_stretched_image():
    """Undo brightness and contrast by their definition: every pixel is one of the image, near where it was."""
    image = torch.arange(256.0).view(1, 1, 16, 16).expand(40, 1, 16, 16)
    view, _ = two_views(image, seed=0, indices=range(40))
    steps = view[:, 0].diff(dim=2)[:, :, 4:-4].flatten(1)
    contrast = steps.abs().mean(1)
    assert ((contrast >= 0.8) & (contrast <= 1.2)).all()
    assert 5 < int((steps.mean(1) < 0).sum()) < 35
    torch.testing.assert_close(steps.abs(), contrast.unsqueeze(1).expand_as(steps), rtol=1e-3, atol=1e-3)
    assert view.unique(dim=0).shape[0] == 40


@pytest.mark.parametrize("shape", [(4, 7), (4, 3, 5)])
def test_what_is_not_an_image_has_no_augmentation(shape):
    """Noise alone then makes the views."""
    values = torch.randn(shape)
    first, second = two_views(values, seed=0, indices=range(4))
    assert torch.equal(first, values)
    assert torch.equal(second, values)


@pytest.mark.parametrize("size", [1, 2, 9])
def test_small_images_have_views_of_their_own_size(size):
    """Where an eighth is no pixel there is no shift."""
    images = torch.randn(3, 1, size, size + 1)
    assert two_views(images, seed=0, indices=range(3))[0].shape == images.shape


@pytest.mark.parametrize(("num", "width", "is_comparable"), [(40, 20, True), (39, 20, False), (20, 30, False)])
def test_few_images_for_the_features_are_not_compared(num, width, is_comparable):
    """Where the noise covariance is all but singular the jackknife's errors are too small."""
    signal, generator = Contamination(1), torch.Generator().manual_seed(0)
    shared = torch.randn(1, num, width, generator=generator)
    views = (shared + torch.randn(1, num, width, generator=generator) for _ in range(2))
    signal.update(*views, torch.arange(num))
    assert signal.compute().is_comparable is is_comparable
