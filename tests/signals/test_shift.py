"""Shifts between two sets of images, against scipy and by their names."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import ttest_ind

from unimodal_monitor.signals import shift
from unimodal_monitor.signals.shift import FLOOR, find_shift, image_statistics

TINT = torch.tensor([0.1, 0, -0.1]).view(3, 1, 1)
BLUR = torch.nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


def pictures(num, *, seed):
    """Smooth images of varied brightness and contrast, in [-1, 1] or about."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(num, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, 16, mode="bilinear")
    fine = 0.2 * torch.randn(num, 3, 16, 16, generator=generator)
    brightness = 0.25 * torch.randn(num, 1, 1, 1, generator=generator)
    return 0.4 * smooth + fine + brightness


def test_two_draws_of_one_distribution_are_alike():
    for seed, (num_members, num_heldout) in itertools.product(range(5), [(100, 1000), (500, 500)]):
        assert find_shift(pictures(num_members, seed=seed), pictures(num_heldout, seed=100 + seed)) is None


@pytest.mark.parametrize(
    ("change", "statistics", "words"),
    [
        (lambda images: images + 0.15, {"mean"}, "brighter than the members"),
        (lambda images: images - 0.15, {"mean"}, "darker than the members"),
        (lambda images: 0.8 * images, {"std", "sharpness", "log colour noise", "log fine noise"}, " than the members"),
        (BLUR, {"sharpness", "log colour noise", "log fine noise"}, " than the members"),
        (lambda images: images + TINT, {"tint of channel 0", "tint of channel 2"}, "in the tint of channel"),
    ],
)
def test_a_change_is_named(change, statistics, words):
    shift = find_shift(pictures(600, seed=0), change(pictures(500, seed=1)))
    assert shift.statistic in statistics
    assert words in shift.describe()
    assert shift.describe().endswith("a gap between them would not mean memorization")


def quantized(images, *, num_bits=8):
    """The images in [-1, 1] at the middles of 2 ** num_bits steps."""
    step = 2 / 2**num_bits
    return ((images.clamp(-1, 1 - 1e-6) + 1) / step).floor() * step + step / 2 - 1


def photographs(num, *, seed, num_channels=3):
    """Quantized smooth images, almost of one colour and brighter at the top, with sharp edges in places."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(num, 1, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, 24, mode="bilinear")
    edges = torch.where(smooth > 0.5, torch.randn(num, 1, 1, 1, generator=generator), 0)
    tint = 0.1 * torch.randn(num, num_channels, 1, 1, generator=generator)
    return quantized(0.3 * smooth + 0.3 * edges + tint + torch.linspace(0.1, -0.1, 24).view(1, 1, 24, 1))


def with_noise(images):
    """Noise of 2.5 steps of 8 bits, and 8 bits again."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(9))
    return quantized(images + 2.5 / 127.5 * noise)


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_noise, {"noisier than the members", "noisier in colour than the members"}),
        (lambda images: quantized(images, num_bits=5), {"more coarsely quantized than the members"}),
        (lambda images: images.flip(2), {"darker at the top than the members"}),
    ],
)
def test_preprocessing_that_the_network_denoises_worse_is_named(change, words, num_channels):
    """Noise of 2.5/255 and 5 bits made a third of the memorizer's gap on a network that had memorized nothing."""
    members, heldout = (photographs(500, seed=seed, num_channels=num_channels) for seed in (0, 1))
    assert find_shift(members, heldout) is None
    sentence = find_shift(members, change(heldout)).describe()
    assert any(f"held-out images are {word}" in sentence for word in words)


def test_distinct_values_are_counted_in_8_bits_whatever_the_precision():
    images = photographs(20, seed=0)
    counts = [math.log(len(np.unique(image))) for image in images.numpy()]
    for same in (images, (images + 1) / 2, 3 * images - 1, images.half()):
        assert image_statistics(same)["log number of values"].tolist() == pytest.approx(counts)
    few = image_statistics(quantized(images, num_bits=5))["log number of values"]
    assert few.max() <= math.log(32)


def test_of_a_large_set_a_part_spread_over_it_is_compared(monkeypatch):
    """Whatever the order: here the last tenth of the held-out images is brighter."""
    sizes, generator = [], torch.Generator().manual_seed(0)
    seen = shift.image_statistics
    monkeypatch.setattr(shift, "image_statistics", lambda images: (sizes.append(len(images)), seen(images))[1])
    members, heldout = (torch.randn(6000, 3, 4, 4, generator=generator) for _ in range(2))
    heldout[-600:] += 3
    monkeypatch.setattr(shift, "MAX_VALUES", 2000 * members[0].numel())
    assert find_shift(members, heldout).statistic == "mean"
    monkeypatch.setattr(shift, "MAX_VALUES", members[0].numel())
    assert find_shift(members[:200], members[200:3000]) is None
    assert sizes == [2000, 2000, 300, 200]


def test_fine_noise_is_not_moved_by_slopes_or_straight_edges():
    """A checkerboard of amplitude a has mixed differences of 4a; grey noise has none between channels."""
    slope = torch.linspace(0, 1, 16).view(16, 1) + torch.linspace(0, 1, 16)
    edges = (torch.arange(16) > 7).float().view(16, 1) + (torch.arange(16) > 4).float()
    checkers = 1.0 - 2.0 * ((torch.arange(16).view(16, 1) + torch.arange(16)) % 2)
    images = torch.stack([slope, edges, edges + 0.25 * checkers]).unsqueeze(1).repeat(1, 3, 1, 1)
    fine = image_statistics(images)["log fine noise"].exp() - FLOOR
    assert fine.tolist() == pytest.approx([0, 0, 1], abs=1e-6)
    half_flat = images * (torch.arange(16) < 8)
    assert float(image_statistics(half_flat)["log fine noise"][2].exp() - FLOOR) == pytest.approx(0, abs=1e-6)
    coloured = images * torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1)
    for picture, wanted in ((images, 0), (coloured, 1.5)):  # of the channels' differences, 1 and 2 times the checkers
        assert float(image_statistics(picture)["log colour noise"].exp()[2] - FLOOR) == pytest.approx(wanted, abs=1e-6)


def test_each_image_has_statistics_of_its_own():
    """However many there are: large sets are handled in parts."""
    images = pictures(6000, seed=0)
    whole, single = image_statistics(images), image_statistics(images[-1:])
    for name, values in whole.items():
        assert len(values) == 6000
        assert float(values[-1]) == pytest.approx(float(single[name]), rel=1e-5)


def test_latents_have_no_quantization_to_differ_in():
    """Every value is distinct; half precision is no shift."""
    x, y = (torch.randn(500, 4, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert find_shift(x, y) is None
    assert find_shift(x, y.half().float()) is None


def test_the_difference_is_that_of_welchs_test():
    members, heldout = pictures(600, seed=0), pictures(500, seed=1) + 0.15
    shift, (ours, theirs) = find_shift(members, heldout), [image_statistics(x)["mean"] for x in (members, heldout)]
    assert shift.statistic == "mean"
    assert shift.z == pytest.approx(ttest_ind(theirs, ours, equal_var=False).statistic)
    assert shift.effect == pytest.approx((theirs.mean() - ours.mean()) / ((theirs.var() + ours.var()) / 2) ** 0.5)
    assert (shift.heldout, shift.members) == pytest.approx((float(heldout.mean()), float(members.mean())), rel=1e-5)


def test_large_sets_may_differ_a_little():
    """Twelve standard errors, and no reason to warn: a twentieth of a standard deviation."""
    x = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0))
    y = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(1)) + 0.05 / 2**0.5
    assert find_shift(x, y) is None
    assert find_shift(x, y, min_effect=0.01) is not None


def test_vectors_and_constant_images_are_compared_by_what_they_have():
    """Without an infinity."""
    x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    assert set(image_statistics(x)) == {"mean", "std"}
    assert find_shift(x, 1.5 * x[torch.randperm(400)]).statistic == "std"
    black, grey = torch.zeros(10, 1, 4, 4), torch.full((10, 1, 4, 4), 0.5)
    assert find_shift(black, black) is None
    shift = find_shift(black, grey)
    assert shift.statistic == "mean"
    assert math.isfinite(shift.z)


def test_sets_that_cannot_be_compared_are_refused():
    for sizes in (((5, 3, 8, 8), (5, 3, 16, 16)), ((5, 3), (1, 3))):
        with pytest.raises(ValueError, match="of one shape, at least 2 of each"):
            find_shift(*map(torch.zeros, sizes))
