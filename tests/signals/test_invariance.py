"""ICR against direct formulas, brute-force leave-one-out and a Gaussian whose ICR is known; views as pure functions."""

import numpy as np
import pytest
import torch

from unimodal_monitor.signals.invariance import RIDGE, Contamination, pseudo_cleanliness
from unimodal_monitor.signals.views import another_view
from unimodal_monitor.stats.paired import surely_under


def gaussian_views(num, width, *, ratio, seed):
    """Signal variances around `ratio` times the noise's, and both mixed by one matrix: true ICR 1 / (1 + ratio)."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.2, 1.8, width, dtype=torch.float64)
    mix = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64)).Q * (spread + 0.5)
    signal = torch.randn(num, width, generator=generator, dtype=torch.float64) * (ratio * spread).sqrt()
    noise = torch.randn(2, num, width, generator=generator, dtype=torch.float64)
    return ((signal + noise) @ mix).unbind(0)


def icr_of(first, second, **options):
    contamination = Contamination(1, **options)
    for is_second, view in enumerate((first, second)):
        contamination.update(view[None], torch.arange(len(view)), is_second=bool(is_second))
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


def test_features_that_cannot_belong_together_are_refused():
    """Of other shapes, and images with one view alone."""
    signal, features = Contamination(2), torch.randn(2, 9, 4)
    with pytest.raises(ValueError, match=r"shape \(K, N, D\)"):
        signal.update(features[0], torch.arange(9), is_second=False)
    signal.update(features, torch.arange(9), is_second=False)
    signal.update(features[:, :6], torch.arange(6), is_second=True)
    with pytest.raises(ValueError, match="both views of every image, got 9 first and 6 second"):
        signal.compute()
    signal.reset()
    signal.update(features, torch.arange(9), is_second=False)
    signal.update(features[:, :, :3], torch.arange(9), is_second=True)
    with pytest.raises(ValueError, match="as many features, got 4 and 3"):
        signal.compute()
    with pytest.raises(ValueError, match="it is a count, from 1"):
        Contamination(2, images_per_direction=0)


@pytest.mark.parametrize(("num", "directions"), [(3, 1), (20, 5), (60, 15), (80, 20), (200, 20)])
def test_wide_features_are_looked_at_in_as_many_directions_as_the_images_allow(num, directions):
    """And in all of them where the images are enough; a dead feature is none."""
    first, second = gaussian_views(num, 20, ratio=2.0, seed=0)
    dead = torch.full((num, 3), 3.0, dtype=torch.float64)
    found = icr_of(torch.cat([dead, first], 1), torch.cat([dead, second], 1), images_per_direction=4)
    assert (found.num_features, found.num_directions) == (20, directions)
    assert ("random directions of 20 features" in found.describe()) is (directions < 20)
    if directions == 20:
        torch.testing.assert_close(found.cleanliness_KN, icr_of(first, second).cleanliness_KN)


def test_the_directions_are_the_same_at_every_check():
    """Whatever else was drawn; they are a matter of the width alone, and of no unit."""
    first, second = gaussian_views(100, 60, ratio=2.0, seed=0)
    expected = icr_of(first, second, images_per_direction=4)
    torch.randn(3), np.random.standard_normal(3)
    scale = torch.logspace(-3, 3, 60, dtype=torch.float64)
    found = icr_of(scale * first + 1, scale * second + 1, images_per_direction=4)
    torch.testing.assert_close(found.cleanliness_KN, expected.cleanliness_KN, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("ratio", [0.5, 4.0])
def test_directions_keep_the_icr_where_all_are_alike(ratio):
    """Signal and noise of one shape have one ICR in every direction: 1 / (1 + ratio)."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(128, 128, generator=generator, dtype=torch.float64)
    signal, *noise = torch.randn(3, 400, 128, generator=generator, dtype=torch.float64) @ mix
    found = icr_of(*(ratio**0.5 * signal + view for view in noise), images_per_direction=4)
    assert found.num_directions == 100
    assert abs(float(found.icr_K) - 1 / (1 + ratio)) < 4 * float(found.error_K)


@pytest.mark.parametrize(("num", "width", "uneven"), [(60, 64, 0.0), (100, 256, 0.0), (64, 64, 0.0), (100, 256, 0.5)])
def test_a_wide_layer_that_did_not_change_is_rarely_said_to_have_fallen(num, width, uneven):
    """100 pairs of checks of the same truth: at an error of 5 % no more than 12 falls, which chance gives once in 500.

    Without the directions 39 of 40 pairs fall with 60 images and 64 features. `uneven` is the standard deviation of the
    logarithm of the size of the noise, image by image, the same at both checks.
    """
    generator, falls = torch.Generator().manual_seed(0), 0
    for _ in range(100):
        signal, *noise = torch.randn(5, num, width, generator=generator, dtype=torch.float64)
        size_N1 = (uneven * torch.randn(num, 1, generator=generator, dtype=torch.float64)).exp()
        noise = [size_N1 * view for view in noise]
        turned = torch.randn(width, width, generator=generator, dtype=torch.float64)
        first, second = (
            icr_of(*(value @ mix for value in views), images_per_direction=4).cleanliness_KN.numpy()
            for views, mix in (
                ([signal + noise[0], signal + noise[1]], torch.eye(width, dtype=torch.float64)),
                ([signal + noise[2], signal + noise[3]], turned),
            )
        )
        falls += surely_under(second, first[0], error=0.05)
    assert falls <= 12


def test_a_wide_layer_that_lost_its_cleanliness_is_said_to_have_fallen():
    """From 0.8 to 0.5, with 270 images and 256 features."""
    first, second = (
        icr_of(*gaussian_views(270, 256, ratio=ratio, seed=0), images_per_direction=4).cleanliness_KN.numpy()
        for ratio in (4.0, 1.0)
    )
    assert surely_under(second, first[0], error=1e-4)


def test_a_view_belongs_to_its_image_and_seed_alone():
    """Not to the batch, the order or the global generator, and it is not the image."""
    images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    views = another_view(images, seed=1, indices=range(6))
    alone = another_view(images[[4, 2]], seed=1, indices=[4, 2])
    torch.testing.assert_close(alone, views[[4, 2]])
    assert torch.equal(torch.get_rng_state(), before)
    assert (views != images).flatten(1).any(1).all()
    assert not torch.equal(another_view(images, seed=2, indices=range(6)), views)


def test_a_view_is_a_shifted_flipped_and_stretched_image():
    """Undo brightness and contrast by their definition: every pixel is one of the image, near where it was."""
    image = torch.arange(256.0).view(1, 1, 16, 16).expand(40, 1, 16, 16)
    view = another_view(image, seed=0, indices=range(40))
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
    assert torch.equal(another_view(values, seed=0, indices=range(4)), values)


@pytest.mark.parametrize("size", [1, 2, 9])
def test_small_images_have_views_of_their_own_size(size):
    """Where an eighth is no pixel there is no shift."""
    images = torch.randn(3, 1, size, size + 1)
    assert another_view(images, seed=0, indices=range(3)).shape == images.shape
