"""The denoising gap: how much better the network denoises members than held-out images."""

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from unimodal_monitor.signals.measured import Measured
from unimodal_monitor.stats.estimate import Estimate, finite_array
from unimodal_monitor.stats.paired import AdjustedMeans, adjusted_means

MIN_LEAD = 4.0
"""Standard errors by which the memorizer must beat the held-out error before anything is divided by its lead."""


def denoising_error(denoised: Tensor, clean: Tensor) -> Tensor:
    """(K, N) mean squared errors of (K, N, ...) denoised against (N, ...) clean images, in squared data units."""
    return (denoised.float() - clean.float()).square().flatten(2).mean(2, dtype=torch.float64)


def denoising_gap(measured: Measured, *, confidence: float = 0.95) -> Estimate | None:
    """Held-out error minus members' error, in squared data units; each member has the noise of its partner.

    It is adjusted for the image statistics of each pair, as is the normalized gap.
    """
    if measured.heldout_error is None or measured.members_error is None:
        return None
    gap_KP = finite_array("denoising_gap", measured.heldout_error - measured.members_error)
    found, error = adjusted_means(gap_KP, measured.covariates), (1 - confidence) / 2
    rows = measured.sigmas, found.mean, found.lower(error), found.upper(error)
    sigmas, value, low, high = (tuple(map(float, row)) for row in rows)
    label = "denoising gap (held-out - members)"
    return Estimate("denoising_gap", label, sigmas, value, low, high, neutral=0.0, note=measured.shift or "")


def normalized_gap(measured: Measured, *, confidence: float = 0.95) -> Estimate | None:
    """The gap as a fraction of the memorizer's: 0 treats both sets alike, 1 is the memorizer.

    Its limits are Fieller's. Levels at which the memorizer does not lead by MIN_LEAD standard errors are left out.
    """
    if measured.heldout_error is None or measured.members_error is None or measured.memorizer_error is None:
        return None
    errors = (measured.heldout_error, measured.members_error, measured.memorizer_error)
    heldout_KN, members_KN, memorizer_KN = (finite_array("denoising error", error_KN) for error_KN in errors)
    gap_KN, lead_KN, rows = heldout_KN - members_KN, heldout_KN - memorizer_KN, []
    for sigma, gap_N, lead_N in zip(measured.sigmas.tolist(), gap_KN, lead_KN, strict=True):
        found = adjusted_means(np.stack([gap_N, lead_N]), measured.covariates)
        limits = fieller(found, confidence=confidence)
        if limits is not None and found.mean[1] > MIN_LEAD * found.errors[1]:
            rows.append((sigma, float(found.mean[0] / found.mean[1]), *limits))
    sigmas, value, low, high = zip(*rows, strict=True) if rows else ((),) * 4
    label = "normalized gap (1: memorizer)"
    return Estimate("normalized_gap", label, sigmas, value, low, high, neutral=0.0, note=measured.shift or "")


def fieller(pair: AdjustedMeans, *, confidence: float) -> tuple[float, float] | None:
    """Confidence limits of the ratio of two means, the first by the second; None where they are unbounded.

    They enclose all g at which the t-test of first - g * second is not significant.

    Source: Fieller 1954, Some problems in interval estimation.
    """
    square = student.isf((1 - confidence) / 2, pair.degrees) ** 2
    top, bottom = pair.mean
    (var_top, covariance), (_, var_bottom) = square * pair.covariance
    quadratic, half = bottom**2 - var_bottom, top * bottom - covariance
    if quadratic <= 0:
        return None
    root = max(half**2 - quadratic * (top**2 - var_top), 0) ** 0.5
    return float((half - root) / quadratic), float((half + root) / quadratic)
