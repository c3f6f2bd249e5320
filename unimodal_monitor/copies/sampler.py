"""Samples of any denoiser: the deterministic sampler of EDM."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.forward.isolation import leaving_no_trace
from unimodal_monitor.forward.noise import PAPER_STD, karras_sigmas, unit_noise

NUM_REACH = 512
"""Levels with which the lowest and the highest level of a schedule are looked for."""


def sampling_sigmas(denoiser: Denoiser, *, std: float, steps: int = 18) -> Tensor:
    """Levels of a sampler, such as the denoiser can express.

    EDM's grid, .002 to 80 for data of standard deviation 0.5, scaled to `std`; where the schedule is shorter, its own
    ends take the place of the grid's, so that no step is lost.

    Args:
        denoiser: that will be sampled.
        std: standard deviation of the data.
        steps: wanted levels, 3 or more; levels that snap to the same timestep are used once.

    Returns:
        (K,) descending, in data units, 2 <= K <= steps.

    Raises:
        ValueError: if `std` is not positive, `steps` is below 3, or the denoiser expresses fewer than two levels.

    Source: Karras et al. 2022 (arXiv 2206.00364), table 1.
    """
    if not 0 < std < float("inf"):
        raise ValueError(f"std is {std}; the standard deviation of the data must be positive and finite")
    if steps < 3:
        raise ValueError(f"steps is {steps}; sampling needs at least 3, usually 18")
    reach = denoiser.snap(karras_sigmas(NUM_REACH) * (std / PAPER_STD))
    if len(reach) < 2:
        raise ValueError(
            f"the denoiser expresses {len(reach)} levels between {0.004 * std:.3g} and {160 * std:.3g};"
            f" sampling needs two or more"
        )
    wanted = karras_sigmas(steps, sigma_min=float(reach[0]), sigma_max=float(reach[-1]))
    return denoiser.snap(wanted).flip(0)


def heun_forwards(sigmas: Tensor) -> int:
    """Network evaluations for one sample of `heun_sample`: two for each level but the last, 35 for 18 levels."""
    return 2 * len(sigmas) - 1


def heun_sample(denoiser: Denoiser, noise: Tensor, sigmas: Tensor) -> Tensor:
    """Follow the probability flow from noise to samples in Heun's steps, without added noise.

    Args:
        denoiser: of any family.
        noise: (N, ...) standard normal.
        sigmas: (K,) levels, descending and positive, in data units; the last step goes from sigmas[-1] to zero.

    Returns:
        (N, ...) samples in data units, on the device and in the precision of the noise; a function of the noise alone.

    Raises:
        ValueError: if `sigmas` is empty, does not descend, or is not positive.

    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 1 with S_churn = 0.
    """
    levels = [*sigmas.tolist(), 0.0]
    if len(levels) < 2 or any(not high > low for high, low in pairwise(levels)):
        raise ValueError(f"sigmas must be positive and descend, got {sigmas.tolist()}")
    x = noise * levels[0]
    for sigma, next_sigma in pairwise(levels):
        slope = _slope(denoiser, x, sigma)
        euler = x + (next_sigma - sigma) * slope
        if next_sigma > 0:
            slope = (slope + _slope(denoiser, euler, next_sigma)) / 2
            euler = x + (next_sigma - sigma) * slope
        x = euler
    return x


def _slope(denoiser: Denoiser, x: Tensor, sigma: float) -> Tensor:
    """(N, ...) dx / dsigma, equation 4."""
    return (x - denoiser(x, torch.full((len(x),), sigma, dtype=x.dtype, device=x.device)).to(x)) / sigma


@dataclass(frozen=True)
class SamplePlan:
    """What `draw_samples` draws.

    Args:
        sigmas: (K,) levels, descending.
        num_samples: at most.
        batch_size: samples in one forward.
        seed: of the noise; that of sample i depends on (seed, i) alone.
        max_seconds: after which no further batch is begun, or None; one is always drawn.
    """

    sigmas: Tensor
    num_samples: int
    batch_size: int
    seed: int
    max_seconds: float | None = None


def draw_samples(denoiser: Denoiser, shape: Sequence[int], plan: SamplePlan, *, device: torch.device) -> Tensor:
    """Draw samples of this shape and leave no trace in the network or in the random state: (N, *shape) on the CPU."""
    start, samples = time.perf_counter(), []
    with leaving_no_trace(denoiser.network, seed=plan.seed):
        for first in range(0, plan.num_samples, plan.batch_size):
            if first and plan.max_seconds is not None and time.perf_counter() - start > plan.max_seconds:
                break
            numbers = range(first, min(first + plan.batch_size, plan.num_samples))
            noise = unit_noise(numbers, shape, draw=0, seed=plan.seed).to(device)
            samples.append(heun_sample(denoiser, noise, plan.sigmas).cpu())
    return torch.cat(samples)
