"""The copy audit: draw samples, and count those that are copies of training images."""

import time
from dataclasses import replace

import torch
from torch import Tensor

from unimodal_monitor.copies.audit import Audit, Pair, clopper_pearson
from unimodal_monitor.copies.duplicates import THIRD, distinct_distances
from unimodal_monitor.copies.nearest import Distances, nearest_training_images
from unimodal_monitor.copies.sampler import SamplePlan, draw_samples, heun_forwards, sampling_sigmas
from unimodal_monitor.data.image_set import ImageSet
from unimodal_monitor.denoisers.base import Denoiser

NUM_PAIRS = 16
"""Closest pairs that an audit names."""
NUM_SPREAD = 2000
"""Training images from which their standard deviation is taken."""


def audit_copies(
    denoiser: Denoiser,
    training_images: Tensor,
    *,
    num_samples: int = 300,
    steps: int = 18,
    seed: int = 0,
    batch_size: int = 64,
    device: torch.device | None = None,
    max_seconds: float | None = None,
    flips: bool = True,
) -> Audit:
    """Draw samples from the network and count the copies of training images among them.

    Args:
        denoiser: of the network, which samples under the denoiser's own condition.
        training_images: all that the network trains on, see `audit_samples`.
        num_samples: to draw; 300 without a copy bound the fraction by 1.2 %.
        steps: levels of the sampler.
        seed: of the noise; that of sample i depends on (seed, i) alone.
        batch_size: samples in one forward.
        device: of the network, or None to ask its parameters.
        max_seconds: after which no further batch of samples is begun; one is always drawn, and comparing comes after.
        flips: see `audit_samples`.

    Returns:
        the audit of the samples that were drawn; the random state and the network's modes are as before.

    Raises:
        ValueError: as `audit_samples` and `sampling_sigmas`, and on counts that are not positive; before any work.
        FloatingPointError: if samples are not finite.
    """
    start = time.perf_counter()
    check_training_images(training_images)
    for name, count in {"num_samples": num_samples, "batch_size": batch_size}.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; at least 1 is needed")
    sigmas = sampling_sigmas(denoiser, std=_spread(training_images), steps=steps)
    plan = SamplePlan(sigmas, num_samples=num_samples, batch_size=batch_size, seed=seed, max_seconds=max_seconds)
    device = device or _device_of(denoiser)
    samples = draw_samples(denoiser, training_images.shape[1:], plan, device=device)
    audit = audit_samples(samples, training_images, flips=flips, device=device)
    num_forwards = len(samples) * heun_forwards(sigmas)
    return replace(audit, seconds=time.perf_counter() - start, num_forwards=num_forwards)


def audit_samples(
    samples: Tensor, training_images: Tensor, *, flips: bool = True, device: torch.device | None = None
) -> Audit:
    """Count the copies of training images among samples that were drawn elsewhere.

    Args:
        samples: (N, ...) in the training images' units.
        training_images: (M, ...) in model units, M >= 3: all of them, since a copy of one left out is not seen.
        flips: whether a mirror image is a copy too, where images have a width.
        device: to compare on, or None for that of the training images; the CPU where there is no double precision.

    Raises:
        ValueError: without samples or on ones of another shape; on fewer than three training images, or ones that are
            not finite or all equal.
        FloatingPointError: if samples are not finite.
    """
    start = time.perf_counter()
    check_training_images(training_images)
    if not len(samples):
        raise ValueError("there are no samples; at least 1 is needed")
    num_broken = int((~samples.flatten(1).isfinite().all(1)).sum())
    if num_broken:
        raise FloatingPointError(f"{num_broken} of {len(samples)} samples hold NaN or infinite pixels")
    device = device or training_images.device
    device = torch.device("cpu") if device.type == "mps" else device
    nearest = nearest_training_images(samples, training_images, flips=flips, device=device)
    distinct = distinct_distances(samples, nearest, Distances(training_images, flips=flips, device=device))
    columns = nearest.indices[:, 0], nearest.is_flipped[:, 0], nearest.distances[:, 0], distinct
    pairs = [Pair(i, *row) for i, row in enumerate(zip(*(column.tolist() for column in columns), strict=True))]
    num_copies = sum(pair.is_copy for pair in pairs)
    return Audit(
        num_samples=len(samples),
        num_copies=num_copies,
        num_copies_third=int((nearest.distances[:, 0] < THIRD * nearest.distances[:, 1]).sum()),
        interval=clopper_pearson(num_copies, len(samples)),
        pairs=tuple(sorted(pairs, key=lambda pair: pair.ratio)[:NUM_PAIRS]),
        seconds=time.perf_counter() - start,
        num_forwards=0,
        samples=samples.cpu(),
    )


def check_training_images(training_images: Tensor) -> None:
    """Raise a ValueError unless there are three or more, finite, and not all equal."""
    if len(training_images) < 3:
        raise ValueError(f"there are {len(training_images)} training images; the 1/3 rule needs at least 3")
    ImageSet(training_images)
    if bool((training_images[1:] == training_images[:1]).all()):
        raise ValueError(f"all {len(training_images)} training images are equal; different ones are needed")


def _spread(images: Tensor) -> float:
    return float(images[:: max(1, len(images) // NUM_SPREAD)].float().std())


def _device_of(denoiser: Denoiser) -> torch.device:
    parameter = next(denoiser.network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
