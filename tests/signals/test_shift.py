"""Shifts between two sets of images, against scipy and by their names."""

import itertools
import math

import pytest
import torch
from scipy.stats import ttest_ind

from unimodal_monitor.signals.shift import find_shift, image_statistics

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
        (lambda images: 0.8 * images, {"std", "sharpness"}, " than the members"),
        (BLUR, {"sharpness"}, "more blurred than the members"),
        (lambda images: images + TINT, {"tint of channel 0", "tint of channel 2"}, "in the tint of channel"),
    ],
)
def test_a_change_is_named(change, statistics, words):
    shift = find_shift(pictures(600, seed=0), change(pictures(500, seed=1)))
    assert shift.statistic in statistics
    assert words in shift.describe()
    assert shift.describe().endswith("a gap between them would not mean memorization")


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
