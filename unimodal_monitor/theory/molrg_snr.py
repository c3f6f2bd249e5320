"""How much of a denoised sample lies in its own class's subspace: the SNR that the paper's theorem is about."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.theory.molrg import MoLRG


@dataclass(frozen=True)
class ClassSNR:
    """Signal-to-noise ratios of a denoiser, measured on samples.

    Args:
        mean: (K,) by level; the mean over classes of each class's ratio.
        errors: (K,) their standard errors. The levels share samples and noise, so that neighbours err together.
    """

    mean: Tensor
    errors: Tensor


@dataclass(frozen=True)
class Rates:
    """What competes in the closed form, (K,) by level.

    Args:
        denoising: sigma^2 / delta^2, how far the irrelevant directions are shrunk; it rises.
        confidence: the share of the class's own directions that is kept: 1 when the class is certain; it falls.
        confusion: the same of a wrong class: delta^2 when the class is certain; it rises to meet the confidence.
    """

    denoising: Tensor
    confidence: Tensor
    confusion: Tensor


def measure_class_snr(
    denoiser: Denoiser, data: MoLRG, sigmas: Tensor, *, num: int = 20_000, seed: int = 0, batch_size: int = 20_000
) -> ClassSNR:
    """Signal-to-noise ratio of denoised samples at each level: energy inside the class's subspace to energy outside.

        SNR(sigma) = mean over classes k of E |U_k U_k^T D(x)|^2 / E |D(x) - U_k U_k^T D(x)|^2

    Args:
        denoiser: of `data`'s samples, any.
        data: what is drawn from.
        sigmas: (K,) levels.
        num: samples of all classes together, fresh from `seed`.
        seed: of samples and noise; the same noise is used at all levels.
        batch_size: samples denoised at a time.

    Raises:
        ValueError: if a class got fewer than two samples, or a level is not positive.

    With `PosteriorMean` the orthogonal row of the paper's table 4 is reproduced within 3 % at every level. Its
    overlapping row is not: at 30 degrees the last three levels agree within 3 %, the peak is 4 % and what lies below it
    up to 50 % too high. `docs/theory.md` has the numbers and the readings tried.

    Source: Li et al. 2025 (arXiv 2502.05743), definition 1: a ratio of means for each class, not a mean of ratios.
    """
    if sigmas.ndim != 1 or not (sigmas > 0).all():
        raise ValueError(f"sigmas = {sigmas.tolist()}; a row of positive levels would do")
    clean, labels = data.sample(num, seed=seed)
    if torch.bincount(labels, minlength=data.num_classes).min() < 2:
        raise ValueError(f"num = {num}: a class got fewer than two samples; more are needed")
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed + 1))
    levels = []
    for sigma in sigmas.tolist():
        batches = zip(clean.split(batch_size), noise.split(batch_size), strict=True)
        denoised = [denoiser(x + sigma * e, torch.full((len(x),), sigma)).double() for x, e in batches]
        levels.append(_ratio(torch.cat(denoised), labels, data.subspaces().double()))
    mean, errors = torch.tensor(levels, dtype=torch.float64).T
    return ClassSNR(mean, errors)


def class_rates(data: MoLRG, sigmas: Tensor) -> Rates:
    """The rates of the closed form, (K,) each in float64.

    Raises:
        ValueError: if the classes are not orthogonal with means of zero: the theorem is about these alone.

    Source: Li et al. 2025 (arXiv 2502.05743), theorem 1: the weights are the softmax of the *expected* exponents, the
    only approximation. The expected exponents are derived here.
    """
    if data.angle_deg != 90 or data.mean_distance:
        raise ValueError(
            f"angle_deg = {data.angle_deg}, mean_distance = {data.mean_distance}: the closed form is of orthogonal"
            f" classes with means of zero; measure_class_snr takes any"
        )
    variance, delta2 = sigmas.double().square(), data.delta**2
    advantage = data.rank * (1 - delta2) ** 2 / (2 * (1 + variance) * (delta2 + variance))
    right = 1 / (1 + (data.num_classes - 1) * (-advantage).exp())
    wrong = (-advantage).exp() * right
    return Rates(variance / delta2, (1 - delta2) * right + delta2, (1 - delta2) * wrong + delta2)


def closed_form_snr(data: MoLRG, sigmas: Tensor) -> Tensor:
    """The paper's closed form of the posterior mean's signal-to-noise ratio: (K,) in float64.

    It is right where the class is nearly certain or nearly open. In between it overshoots: at the peak two to three
    times for classes of rank 5, and the peak comes at too much noise.

    Raises:
        ValueError: if the classes are not orthogonal with means of zero.

    Source: Li et al. 2025 (arXiv 2502.05743), theorem 1.
    """
    rates, variance = class_rates(data, sigmas), sigmas.double().square()
    gain = (1 + rates.denoising * rates.confidence) / (1 + rates.denoising * rates.confusion)
    return (1 + variance) / (data.delta**2 + variance) / (data.num_classes - 1) * gain.square()


def is_unimodal(data: MoLRG) -> bool:
    """Whether the closed form rises before it falls: d (1 - delta^2)^2 / (2 delta^2) > ln(K + 1).

    Ours, from the slope of the theorem's closed form at sigma = 0; the paper does not give it. Where it fails, the
    classes are told apart too badly even without noise for denoising to win.
    """
    return data.rank * (1 - data.delta**2) ** 2 / (2 * data.delta**2) > math.log(data.num_classes + 1)


def _ratio(denoised: Tensor, labels: Tensor, subspaces: Tensor) -> tuple[float, float]:
    """Mean over classes of signal over noise, and its standard error by the delta method."""
    ratios, variances = [], []
    for label, subspace in enumerate(subspaces):
        own = denoised[labels == label]
        inside = own @ subspace @ subspace.T
        signal, noise = inside.square().sum(1), (own - inside).square().sum(1)
        ratio = signal.mean() / noise.mean()
        ratios.append(ratio)
        variances.append((signal - ratio * noise).var() / noise.mean().square() / len(own))
    return torch.stack(ratios).mean().item(), torch.stack(variances).sum().sqrt().item() / len(subspaces)
