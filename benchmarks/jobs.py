"""Monitors to be timed: the example's network, and a small one, on random images."""

from typing import Any

import torch
from torch import Tensor, nn
from zoo import LAYERS, EDMPrecond, build_unet

from unimodal_monitor import EDMDenoiser, Monitor, ProbeSet
from unimodal_monitor.data.image_set import ImageSet

NUM_CLASSES = 10


def example_monitor(num_images: int, *, device: str = "cpu", num_levels: int | None = None, **options: Any) -> Monitor:
    """The example's network with random weights, on random images; without signals unless `signals` is given."""
    torch.manual_seed(0)
    network = EDMPrecond(build_unet()).to(device, memory_format=torch.channels_last)
    sigmas = None if num_levels is None else torch.logspace(-2.7, 0.3, num_levels)
    options = {"signals": (), "sigmas": sigmas, "layer": LAYERS[-1], "extra_layers": LAYERS[:-1], **options}
    return Monitor(EDMDenoiser(network), random_images(num_images, 16), reporters=(), **options)


def random_images(num_images: int, size: int) -> ProbeSet:
    """A third of `num_images` to fit on, the others to score, and members beside them."""
    images = torch.randn(num_images, 3, size, size, generator=torch.Generator().manual_seed(1)).mul_(0.5)
    labels, third = torch.arange(num_images) % NUM_CLASSES, num_images // 3
    members = torch.randn(max(64, num_images // 6), 3, size, size, generator=torch.Generator().manual_seed(2)).mul_(0.5)
    return ProbeSet(
        ImageSet(members), ImageSet(images[third:], labels[third:]), ImageSet(images[:third], labels[:third])
    )


class Tiny(nn.Module):
    """Two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 3, 1)

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(noised)))


def small_monitor(num_images: int, *, network: nn.Module | None = None, **options: Any) -> Monitor:
    """Two convolutions on random images of 4x4; without signals unless `signals` is given."""
    torch.manual_seed(0)
    options = {"signals": (), "layer": "first", "batch_size": 4608, **options}
    return Monitor(EDMDenoiser(network or Tiny()), random_images(num_images, 4), reporters=(), **options)
