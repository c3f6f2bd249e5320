"""Noise levels, and noise that is a pure function of (seed, image)."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unimodal_monitor.denoisers.base import Denoiser

PAPER_STD = 0.5  # standard deviation of the data in the paper's units: CIFAR-10 scaled to [-1, 1]
MIN_LEVELS = 4  # A low-noise end, an interior of two levels, and a level beyond it


def karras_sigmas(num: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """Levels whose rho-th roots are evenly spaced: (num,) ascending, from `sigma_min` to `sigma_max`.

    Source: Karras et al. 2022 (arXiv 2206.00364), equation 5.
    """
    if num < 3:
        raise ValueError(f"num = {num}: a curve with an interior needs at least 3 levels")
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"need 0 < sigma_min < sigma_max < inf, got {sigma_min} and {sigma_max}")
    ramp = torch.linspace(0, 1, num, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    sigmas: Tensor = (low + ramp * (high - low)) ** rho
    return sigmas


def paper_sigmas(std: float) -> Tensor:
    """The nine levels of the paper, .002 to 1.923 for data of standard deviation 0.5, scaled to `std`: (9,).

    Source: arXiv 2502.05743, appendix B: the nine lowest nodes of the EDM sampler's 18 steps.
    """
    return karras_sigmas(18)[:9] * (std / PAPER_STD)


def noise_levels(denoiser: Denoiser, std: float, sigmas: Tensor | Sequence[float] | None) -> tuple[Tensor, int]:
    """(K,) levels as the network's schedule can express them, and how many of the wanted ones are out of its reach.

    The wanted levels are in data units; None is for the paper's, scaled to the data's standard deviation.
    """
    wanted = paper_sigmas(std) if sigmas is None else torch.as_tensor(sigmas, dtype=torch.float64)
    if wanted.ndim != 1 or not (wanted > 0).all() or not wanted.isfinite().all() or not (wanted.diff() > 0).all():
        raise ValueError(f"sigmas must be positive and ascending, got {wanted.tolist()}")
    levels = denoiser.snap(wanted)
    if len(levels) < MIN_LEVELS:
        raise ValueError(
            f"sigmas: a curve needs at least {MIN_LEVELS} levels, and the schedule can express {len(levels)} of "
            f"{wanted.tolist()}: {levels.tolist()}; give other `sigmas`"
        )
    return levels, len(wanted) - len(levels)


def unit_noise(indices: Sequence[int], shape: Sequence[int], *, seed: int) -> Tensor:
    """Standard normal noise that belongs to an image and not to a batch, a level, a check or a rank.

    (B, *shape) float32 on the CPU, a pure function of the seed and of the images' numbers within the probe set, by a
    counter-based generator.
    """
    noise = np.empty((len(indices), *shape), dtype=np.float32)
    for row, index in zip(noise, indices, strict=True):
        generator = np.random.Generator(np.random.Philox(key=[seed, int(index)], counter=[0, 0, 0, 0]))
        generator.standard_normal(dtype=np.float32, out=row)
    return torch.from_numpy(noise)
