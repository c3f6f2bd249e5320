"""Signal-to-noise ratio of denoised samples of the mixture: their energy in the subspace of their class and outside."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.theory.molrg import MoLRG


@dataclass(frozen=True)
class ClassSNR:
    """Signal-to-noise ratios (K,), means over classes, and their standard errors; levels share samples and noise."""

    mean: Tensor
    errors: Tensor


@dataclass(frozen=True)
class Rates:
    """The competing terms of the closed form, (K,) by level.

    Args:
        denoising: sigma^2 / delta^2, shrinkage of the directions of other classes; it rises.
        confidence: Share that is kept of the directions of the sample's class, 1 if the class is certain; it falls.
        confusion: Share that is kept of those of a wrong class, delta^2 if the class is certain; it rises.
    """

    denoising: Tensor
    confidence: Tensor
    confusion: Tensor


def measure_class_snr(
    denoiser: Denoiser, data: MoLRG, sigmas: Tensor, *, num: int = 20_000, seed: int = 0, batch_size: int = 20_000
) -> ClassSNR:
    """Estimate the ratio of energies in the subspace of the class and outside it, at each level:

        SNR(sigma) = mean over classes k of E |U_k U_k^T D(x)|^2 / E |D(x) - U_k U_k^T D(x)|^2

    Args:
        denoiser: Denoiser for samples of `data`.
        data: Mixture to sample.
        sigmas: (K,) noise levels.
        num: Number of samples over all classes.
        seed: Seed of samples and noise; all levels use the same noise.
        batch_size: Samples denoised at a time.

    Raises:
        ValueError: If a class gets fewer than two samples, or a level is not positive.

    With `PosteriorMean` this reproduces the orthogonal row of the paper's table 4 within 3 %. Of its overlapping row,
    at 30 degrees, only the three highest levels agree; lower ones are up to 50 % too high, see `docs/theory.md`.

    Source: Li et al. 2025 (arXiv 2502.05743), definition 1: a ratio of means for each class, not a mean of ratios.
    """
    if sigmas.ndim != 1 or not (sigmas > 0).all():
        raise ValueError(f"need positive sigmas of shape (K,), got {sigmas.tolist()}")
    clean, labels = data.sample(num, seed=seed)
    if torch.bincount(labels, minlength=data.num_classes).min() < 2:
        raise ValueError(f"need at least 2 samples of each class, got fewer with num = {num}")
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed + 1))
    levels = []
    for sigma in sigmas.tolist():
        batches = zip(torch.split(clean, batch_size), torch.split(noise, batch_size), strict=True)
        denoised = [denoiser(x + sigma * e, torch.full((len(x),), sigma)).double() for x, e in batches]
        levels.append(_ratio(torch.cat(denoised), labels, data.subspaces().double()))
    mean, errors = torch.tensor(levels, dtype=torch.float64).T
    return ClassSNR(mean, errors)


def class_rates(data: MoLRG, sigmas: Tensor) -> Rates:
    """The terms of the closed form, (K,) each in float64.

    Raises:
        ValueError: If the classes are not orthogonal with means of zero, as the theorem assumes.

    Source: Li et al. 2025 (arXiv 2502.05743), theorem 1. Its only approximation is that the weights are the softmax of
    the *expected* exponents, which are derived here.
    """
    if data.angle_deg != 90 or data.mean_distance:
        raise ValueError(f"need angle_deg = 90 and mean_distance = 0, got {data.angle_deg} and {data.mean_distance}")
    variance, delta2 = sigmas.double().square(), data.delta**2
    advantage = data.rank * (1 - delta2) ** 2 / (2 * (1 + variance) * (delta2 + variance))
    right = 1 / (1 + (data.num_classes - 1) * (-advantage).exp())
    wrong = (-advantage).exp() * right
    return Rates(variance / delta2, (1 - delta2) * right + delta2, (1 - delta2) * wrong + delta2)


def closed_form_snr(data: MoLRG, sigmas: Tensor) -> Tensor:
    """The paper's closed form of the signal-to-noise ratio of the posterior mean: (K,) in float64.

    It is accurate where the class is nearly certain or nearly undetermined. In between it is too high, at the peak by a
    factor of two to three for classes of rank 5, and the peak is at too much noise. Errors as in `class_rates`.

    Source: Li et al. 2025 (arXiv 2502.05743), theorem 1.
    """
    rates, variance = class_rates(data, sigmas), sigmas.double().square()
    gain = (1 + rates.denoising * rates.confidence) / (1 + rates.denoising * rates.confusion)
    return (1 + variance) / (data.delta**2 + variance) / (data.num_classes - 1) * gain.square()


def is_unimodal(data: MoLRG) -> bool:
    """Whether the closed form rises before it falls: d (1 - delta^2)^2 / (2 delta^2) > ln(K + 1).

    Derived here from the slope of the closed form at sigma = 0; the paper does not state it. Where it is false, classes
    are so alike that even without noise the loss of class information outweighs the denoising.
    """
    return data.rank * (1 - data.delta**2) ** 2 / (2 * data.delta**2) > math.log(data.num_classes + 1)


def _ratio(denoised: Tensor, labels: Tensor, subspaces: Tensor) -> tuple[float, float]:
    """Mean over classes of the signal-to-noise ratio, and its standard error by the delta method."""
    ratios, variances = [], []
    for label, subspace in enumerate(subspaces):
        own = denoised[labels == label]
        inside = own @ subspace @ subspace.T
        signal, noise = inside.square().sum(1), (own - inside).square().sum(1)
        ratio = signal.mean() / noise.mean()
        ratios.append(ratio)
        variances.append((signal - ratio * noise).var() / noise.mean().square() / len(own))
    return torch.stack(ratios).mean().item(), torch.stack(variances).sum().sqrt().item() / len(subspaces)
