"""Growth of the members' advantage: what the network has learned since an earlier check about the members alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unimodal_monitor.signals.measured import Measured
from unimodal_monitor.stats.estimate import Estimate
from unimodal_monitor.stats.paired import AdjustedMeans, adjusted_means

TRAINED = 0.8
"""Largest share of the best scalar denoiser's error at which a network counts as trained."""
LEVELS = (0.05, 2.0)
"""Levels at which growth is measured, in standard deviations of the data: there single images can be learned."""


@dataclass(frozen=True, eq=False)
class Advantage:
    """How much smaller the error of each member is than that of its held-out partner, as a difference of logarithms."""

    step: int
    sigmas: tuple[float, ...]  # (K,) in data units
    values: np.ndarray  # (K, P)


def advantage(measured: Measured, *, step: int) -> Advantage | None:
    """The members' advantage pair by pair, at the levels of `LEVELS`; None where the errors were not measured."""
    if measured.why_no_gap is not None or measured.members_error is None or measured.heldout_error is None:
        return None
    is_used = telling_levels(measured)
    members, heldout = (
        np.log(np.maximum(error_KP[is_used].numpy(), 1e-30))
        for error_KP in (measured.members_error, measured.heldout_error)
    )
    return Advantage(step, tuple(measured.sigmas[is_used].tolist()), heldout - members)


def telling_levels(measured: Measured) -> Tensor:
    """(K,) whether a level is one of `LEVELS`; all of them, if none is."""
    low, high = (factor * measured.data_std for factor in LEVELS)
    is_used = (measured.sigmas >= low) & (measured.sigmas <= high)
    return is_used if bool(is_used.any()) else torch.ones_like(is_used)


def growth(
    now: Advantage, before: Advantage, covariates_PS: np.ndarray | None
) -> tuple[tuple[float, ...], AdjustedMeans]:
    """Growth of the advantage between two checks of the same images and noise, at the levels of both.

    Difference in differences: what is fixed, such as images of another difficulty, cancels image by image; what is left
    is adjusted for the image statistics of each pair. A growth of g means that the members' error fell by the factor
    exp(g) more than that of held-out images of the same statistics.
    """
    sigmas = tuple(sigma for sigma in now.sigmas if sigma in before.sigmas)
    values = [now.values[now.sigmas.index(sigma)] - before.values[before.sigmas.index(sigma)] for sigma in sigmas]
    return sigmas, adjusted_means(np.array(values), covariates_PS)


def growth_estimate(sigmas: Sequence[float], found: AdjustedMeans, *, step: int) -> Estimate:
    """Growth since the check at `step` as a share of the error, 1 - exp(-growth), with 95 % limits at each level."""
    value, low, high = (1 - np.exp(-logs) for logs in (found.mean, found.lower(0.025), found.upper(0.025)))
    label = f"growth of the members' advantage since step {step}"
    return Estimate("growth", label, tuple(sigmas), tuple(value), tuple(low), tuple(high), neutral=0.0)


def is_trained(measured: Measured) -> bool:
    """Whether the network denoises held-out images clearly better than the best single factor on the noised image.

    That is how a new network begins, if not worse. The error of the best factor is s^2 v / (s^2 + v).
    """
    if measured.heldout_error is None:
        return False
    noise, variance = measured.sigmas.square(), measured.data_std**2
    share_K = measured.heldout_error.mean(1) / (noise * variance / (noise + variance))
    return bool((share_K < TRAINED).any())


def image_covariates(images: Tensor) -> Tensor | None:
    """(N, 4) log total variation, log Laplacian energy, log standard deviation and mean of images (N, C, ...).

    They explain most of how hard an image is to denoise; of vectors (N, D) none are known.
    """
    if images.ndim < 3 or len(images) == 0:
        return None
    pixels, axes = images.double(), range(2, images.ndim)
    variation = sum(pixels.diff(dim=axis).abs().flatten(1).mean(1) for axis in axes if images.shape[axis] > 1)
    inner = [_inner_second_difference(pixels, axis) for axis in axes if images.shape[axis] > 2]
    laplacian = sum(inner).square().flatten(1).mean(1) if inner else torch.zeros(len(images))  # type: ignore[union-attr]
    std, mean = pixels.flatten(1).std(1, correction=0), pixels.flatten(1).mean(1)
    return torch.stack([*(_log(torch.as_tensor(part)) for part in (variation, laplacian, std)), mean], 1)


def _inner_second_difference(pixels: Tensor, along: int) -> Tensor:
    """Along one axis, at the places that are inner ones of all axes of more than two."""
    values = pixels.diff(n=2, dim=along)
    for axis in (axis for axis in range(2, pixels.ndim) if axis != along and pixels.shape[axis] > 2):
        values = values.narrow(axis, 1, pixels.shape[axis] - 2)
    return values


def _log(values_N: Tensor) -> Tensor:
    """Logarithms; images without any structure, which would be minus infinity, lie a little below the others."""
    floor = 0.01 * float(values_N.median()) or 1.0
    return (values_N.double() + floor).log()
