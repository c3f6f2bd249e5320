"""Shifts that are there are found, those that are not are not."""

import pytest
import torch

from unimodal_monitor.signals.shift import find_shift, image_statistics


def pictures(num, *, seed):
    """Smooth images of varied brightness and contrast, in [-1, 1] or about."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(num, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, 16, mode="bilinear")
    fine = 0.2 * torch.randn(num, 3, 16, 16, generator=generator)
    brightness = 0.25 * torch.randn(num, 1, 1, 1, generator=generator)
    return 0.4 * smooth + fine + brightness


def blurred(images):
    return torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)


@pytest.mark.parametrize("seed", range(5))
def test_two_draws_of_one_distribution_are_alike(seed):
    """Whatever the sizes."""
    for num_members, num_heldout in ((100, 1000), (500, 500)):
        assert find_shift(pictures(num_members, seed=seed), pictures(num_heldout, seed=100 + seed)) is None


@pytest.mark.parametrize(
    ("change", "statistics", "words"),
    [
        (lambda images: images + 0.15, {"mean"}, "brighter than the members"),
        (lambda images: images - 0.15, {"mean"}, "darker than the members"),
        (lambda images: 0.8 * images, {"std", "sharpness"}, " than the members"),
        (blurred, {"sharpness"}, "more blurred than the members"),
        (
            lambda images: images + torch.tensor([0.1, 0, -0.1]).view(3, 1, 1),
            {"tint of channel 0", "tint of channel 2"},
            "in the tint of channel",
        ),
    ],
)
def test_a_change_is_named(change, statistics, words):
    """With what it means for the gap."""
    shift = find_shift(pictures(600, seed=0), change(pictures(500, seed=1)))
    assert shift.statistic in statistics
    assert words in shift.describe()
    assert shift.describe().endswith("a gap between them would not mean memorization")
    assert shift.to_dict()["z"] == shift.z
    assert abs(shift.z) > 4


def test_large_sets_may_differ_a_little():
    """Twelve standard errors, and no reason to warn: a twentieth of a standard deviation."""
    x = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0))
    y = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(1)) + 0.05 / 2**0.5
    assert find_shift(x, y) is None
    assert find_shift(x, y, min_effect=0.01) is not None


def test_vectors_are_compared_by_mean_and_deviation():
    """They have no channels."""
    x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    assert set(image_statistics(x)) == {"mean", "std"}
    assert find_shift(x, 1.5 * x[torch.randperm(400)]).statistic == "std"


def test_images_of_no_variety_are_compared_without_an_infinity():
    """Constant images differ for sure, or do not."""
    black, grey = torch.zeros(10, 1, 4, 4), torch.full((10, 1, 4, 4), 0.5)
    assert find_shift(black, black) is None
    assert find_shift(black, grey).statistic == "mean"


def test_sets_that_do_not_compare_are_refused():
    """By shape or by number."""
    with pytest.raises(ValueError, match="must be of one shape"):
        find_shift(torch.zeros(5, 3, 8, 8), torch.zeros(5, 3, 16, 16))
    with pytest.raises(ValueError, match="two or more of each"):
        find_shift(torch.zeros(5, 3), torch.zeros(1, 3))
