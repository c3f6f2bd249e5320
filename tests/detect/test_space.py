"""Probe images in another space than the network is trained on are found, and the change that mends it is named."""

import re

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from unimodal_monitor.detect.space import compare_space, middle, name_range


def pictures(num: int, *, seed: int, size: int = 32) -> Tensor:
    """(num, 3, size, size) smooth images in [-1, 1] of differing brightness and contrast."""
    generator = torch.Generator().manual_seed(seed)
    rough, fine, tint = (torch.randn(num, 3, n, n, generator=generator) for n in (4, 8, 1))
    parts = (interpolate(part, size, mode="bilinear") for part in (rough, fine))
    return (0.4 * sum(parts) + 0.3 * tint).clamp(-1, 1).double()


def latents(num: int, *, seed: int) -> Tensor:
    """As rough as a VAE's, with a standard deviation of one."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, 3, 32, 32, generator=generator).double()


def compared(probe: Tensor, seen: Tensor, image: Tensor | None = None) -> str | None:
    batch = None if image is None else middle(image).flatten(1)
    return compare_space(probe.float(), list(middle(seen).flatten(1)), shape=seen.shape[1:], image=batch)


def change_named(message: str) -> Tensor:
    """What the function in the message makes of an image."""
    code = re.search(r"transform=(lambda image: .*)$", message)[1]
    return eval(code)


@pytest.mark.parametrize("num", [12, 24, 48])
def test_images_of_the_same_space_agree(num):
    found = [compared(pictures(200, seed=seed), pictures(num, seed=1000 + seed)) for seed in range(20)]
    assert found == [None] * 20


@pytest.mark.parametrize(
    ("to_probe", "mended"),
    [
        (lambda x: (x + 1) / 2, "2 * image - 1"),
        (lambda x: 127.5 * (x + 1), "image / 127.5 - 1"),
    ],
)
@pytest.mark.parametrize("num", [12, 48])
def test_another_range_is_found_and_its_change_named(to_probe, mended, num):
    probe = pictures(200, seed=0)
    found = compared(to_probe(probe), pictures(num, seed=1))
    assert found.endswith(f"give transform=lambda image: {mended}")
    torch.testing.assert_close(change_named(found)(to_probe(probe)), probe)


@pytest.mark.parametrize("num", [12, 48])
def test_unit_interval_that_is_trained_is_found(num):
    found = compared(pictures(200, seed=0), (pictures(num, seed=1) + 1) / 2)
    assert found.endswith("give transform=lambda image: (image + 1) / 2")
    assert "the probe images are in [-1, 1]" in found
    assert "the network is trained on images in [0, 1]" in found


@pytest.mark.parametrize("factor", [0.18215, 0.13025, 0.3611, 1.9])
def test_missing_scaling_factor_is_estimated(factor):
    found = compared(latents(200, seed=0) / factor, latents(48, seed=1))
    assert change_named(found)(1.0) == pytest.approx(factor, rel=0.02)
    assert "a VAE's scaling_factor" in found


def test_what_the_step_makes_of_its_batch_is_named_exactly():
    """The batch is known: no estimate of two samples is needed."""
    batch = pictures(24, seed=1)
    found = compared(pictures(200, seed=0), 3.25 * batch + 0.75, image=batch)
    assert found.endswith("transform=lambda image: 3.25 * image + 0.75")


def test_normalisation_by_channel_is_found():
    means, stds = (torch.tensor(v).view(3, 1, 1) for v in ((-0.4, 0.1, 1.0), (0.1, 0.25, 0.6)))
    found = compared(pictures(200, seed=0), (pictures(48, seed=1) - means) / stds)
    assert "a function that gives each channel the mean [" in found


def test_pixels_in_place_of_latents_of_the_same_spread_are_found():
    pixels = pictures(200, seed=0)
    seen = latents(48, seed=1) * pixels.std() + pixels.mean()
    assert "lambda images, module: module.vae.encode(images)" in compared(pixels, seen)


def test_another_shape_is_named():
    found = compared(pictures(20, seed=0, size=16), pictures(20, seed=0))
    assert found.startswith(
        "the probe images are (3, 16, 16), the network is trained on (3, 32, 32); give a transform="
    )


@pytest.mark.parametrize("shape", [(3, 200, 200), (16, 64, 64), (4, 9, 50, 50), (9000,), (300, 64)])
def test_middle_is_what_it_says(shape):
    images = torch.arange(2 * torch.tensor(shape).prod()).view(2, *shape)
    part = middle(images)
    assert part[0].numel() <= 4096 < 4 * part[0].numel()
    assert images[0][tuple(size // 2 for size in shape)] in part[0]


@pytest.mark.parametrize(
    ("low", "high", "name"),
    [(0, 1, "[0, 1]"), (-1, 1, "[-1, 1]"), (0, 255, "[0, 255]"), (-0.9, 0.95, "[-1, 1]"), (-4.2, 3, "[-4.2, 3]")],
)
def test_range_is_named(low, high, name):
    assert name_range(torch.linspace(low, high, 50)) == name


def test_images_in_the_order_of_their_classes_are_not_refused():
    """The first steps then see a single class; an image of them that is a probe image, too, proves the space."""
    probe = torch.cat([0.05 * pictures(100, seed=0) + level for level in (-0.9, 0.0, 0.9)])
    others = 0.05 * pictures(24, seed=1) - 0.9
    assert "give transform=" in compared(probe, others)
    assert compared(probe, torch.cat([others, probe[:1]])) is None
    assert "give transform=" in compared((probe + 1) / 2, torch.cat([others, probe[:1]]))
