"""Noise levels, and noise that is a pure function of (seed, image, draw)."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

PAPER_STD = 0.5
"""Standard deviation of the data in the paper's units: CIFAR-10 scaled to [-1, 1]."""


def karras_sigmas(num: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """Levels whose rho-th roots are evenly spaced: (num,) ascending, from `sigma_min` to `sigma_max`.

    Source: Karras et al. 2022 (arXiv 2206.00364), equation 5.
    """
    _check_grid(num, sigma_min, sigma_max)
    ramp = torch.linspace(0, 1, num, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return (low + ramp * (high - low)) ** rho


def log_sigmas(num: int, *, sigma_min: float = 0.002, sigma_max: float = 2.0) -> Tensor:
    """Levels evenly spaced in log sigma: (num,) ascending, from `sigma_min` to `sigma_max`."""
    _check_grid(num, sigma_min, sigma_max)
    return torch.logspace(math.log10(sigma_min), math.log10(sigma_max), num, dtype=torch.float64)


def paper_sigmas(std: float) -> Tensor:
    """The nine levels of the paper, .002 to 1.923 for data of standard deviation 0.5, scaled to `std`: (9,).

    Source: arXiv 2502.05743, appendix B: the nine lowest nodes of the EDM sampler's 18 steps.
    """
    return karras_sigmas(18)[:9] * (std / PAPER_STD)


def unit_noise(indices: Sequence[int], shape: Sequence[int], *, draw: int, seed: int) -> Tensor:
    """Standard normal noise that belongs to an image and not to a batch, a level, a check or a rank.

    Args:
        indices: (B,) numbers of the images within the probe set.
        shape: of one image.
        draw: which of the image's independent draws.
        seed: of all noise of a monitor.

    Returns:
        (B, *shape) float32 on the CPU; a pure function of (seed, index, draw) by a counter-based generator.
    """
    noise = np.empty((len(indices), *shape), dtype=np.float32)
    for row, index in zip(noise, indices, strict=True):
        generator = np.random.Generator(np.random.Philox(key=[seed, int(index)], counter=[0, 0, 0, draw]))
        generator.standard_normal(dtype=np.float32, out=row)
    return torch.from_numpy(noise)


def _check_grid(num: int, sigma_min: float, sigma_max: float) -> None:
    if num < 3:
        raise ValueError(f"num = {num}: a curve with an interior needs at least 3 levels")
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"0 < sigma_min < sigma_max < inf is needed, got {sigma_min} and {sigma_max}")
