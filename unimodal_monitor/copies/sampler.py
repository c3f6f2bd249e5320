"""Samples of any denoiser by EDM's deterministic sampler."""

import time
from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor

from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.forward.isolation import leaving_no_trace
from unimodal_monitor.forward.noise import PAPER_STD, karras_sigmas

NUM_CANDIDATES = 512  # levels among which the lowest and the highest level of a schedule are searched


def sampling_sigmas(denoiser: Denoiser, *, std: float, steps: int = 18) -> Tensor:
    """Noise levels for sampling, all of which the denoiser can express.

    The grid is EDM's, 0.002 to 80 for data of standard deviation 0.5, scaled to `std`, the standard deviation of the
    data. Where the denoiser's schedule is shorter, its own ends replace those of the grid, so that no step is lost.

    Returns:
        (K,) descending, in data units. K is less than `steps` where levels snap to the same timestep.

    Raises:
        ValueError: If `std` is not positive, `steps` is under 3, or the denoiser expresses fewer than two levels.

    Source: Karras et al. 2022 (arXiv 2206.00364), table 1.
    """
    if not 0 < std < float("inf"):
        raise ValueError(f"std is {std}; need a positive, finite standard deviation of the data")
    if steps < 3:
        raise ValueError(f"steps is {steps}; need at least 3, usually 18")
    wanted = karras_sigmas(NUM_CANDIDATES) * (std / PAPER_STD)
    candidates = denoiser.snap(wanted)
    if len(candidates) < 2:
        limits = f"{wanted[0]:.3g} and {wanted[-1]:.3g}"
        raise ValueError(f"the denoiser expresses {len(candidates)} levels between {limits}; need at least 2")
    grid = karras_sigmas(steps, sigma_min=float(candidates[0]), sigma_max=float(candidates[-1]))
    return denoiser.snap(grid).flip(0)


def heun_forwards(sigmas: Tensor) -> int:
    """Network evaluations per sample of `heun_sample`: two per level, one at the last; 35 for 18 levels."""
    return 2 * len(sigmas) - 1


def heun_sample(denoiser: Denoiser, noise: Tensor, sigmas: Tensor) -> Tensor:
    """Integrate the probability-flow ODE with Heun's method, from standard normal noise (N, ...) to samples (N, ...).

    Args:
        denoiser: Denoiser of any family.
        noise: (N, ...) on the device and in the precision that the samples are to have.
        sigmas: (K,) levels, descending and positive, in data units. The last step goes from `sigmas[-1]` to zero.

    Raises:
        ValueError: If `sigmas` is empty, not descending or not positive.

    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 1 with S_churn = 0.
    """
    levels = [*sigmas.tolist(), 0.0]
    if len(levels) < 2 or any(not high > low for high, low in pairwise(levels)):
        raise ValueError(f"sigmas must be positive and descending, got {sigmas.tolist()}")
    x: Tensor = noise * levels[0]
    for sigma, next_sigma in pairwise(levels):
        slope = _slope(denoiser, x, sigma)
        if next_sigma > 0:
            euler = x + (next_sigma - sigma) * slope
            slope = (slope + _slope(denoiser, euler, next_sigma)) / 2
        x = x + (next_sigma - sigma) * slope
    return x


def _slope(denoiser: Denoiser, x: Tensor, sigma: float) -> Tensor:
    """dx / dsigma, (N, ...)."""
    return (x - denoiser(x, torch.full((len(x),), sigma, dtype=x.dtype, device=x.device)).to(x)) / sigma


def draw_samples(
    denoiser: Denoiser, noises: Iterable[Tensor], sigmas: Tensor, *, seed: int, max_seconds: float | None = None
) -> Tensor:
    """Samples (N, ...) on the CPU from batches of noise; network and random state are unchanged afterwards.

    No batch starts after `max_seconds`, except the first. `seed` is for what a network draws itself.
    """
    start, samples = time.perf_counter(), list[Tensor]()
    with leaving_no_trace(denoiser.network, seed=seed):
        for noise in noises:
            if samples and max_seconds is not None and time.perf_counter() - start > max_seconds:
                break
            samples.append(heun_sample(denoiser, noise, sigmas).cpu())
    return torch.cat(samples)
