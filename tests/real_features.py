"""Features of real images with unequal scales: scikit-learn's digits through a random convolution."""

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

SIGMAS = (0.05, 0.5, 1.5)
NUM_FIT = 600


@cache
def digit_features() -> tuple[Tensor, Tensor]:
    """(3, 1797, 64) features at three noise levels, and the (1797,) digits; the first NUM_FIT are to fit on."""
    generator = torch.Generator().manual_seed(0)
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 8 - 1
    convolution = nn.Conv2d(1, 16, 3, padding=1)
    convolution.weight.data = torch.randn(16, 1, 3, 3, generator=generator) * torch.logspace(-1, 1, 16).view(
        16, 1, 1, 1
    )
    convolution.bias.data = torch.randn(16, generator=generator)
    noise = torch.randn(images.shape, generator=generator)
    with torch.no_grad():
        maps = [convolution(images + sigma * noise).relu() for sigma in SIGMAS]
    return torch.stack([nn.functional.avg_pool2d(m, 4).flatten(1) for m in maps]), torch.from_numpy(digits.target)
