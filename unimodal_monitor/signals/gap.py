"""The denoising gap: how much better the network denoises members than held-out images."""

from dataclasses import replace

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from unimodal_monitor.signals.measured import Measured
from unimodal_monitor.stats.estimate import Estimate, finite_array, mean_estimate

MIN_LEAD = 4.0
"""Standard errors by which the memorizer must beat the held-out error before anything is divided by its lead."""


def denoising_error(denoised: Tensor, clean: Tensor) -> Tensor:
    """(K, N) mean squared errors of (K, N, ...) denoised against (N, ...) clean images, in squared data units."""
    return (denoised.float() - clean.float()).square().flatten(2).mean(2, dtype=torch.float64)


def denoising_gap(measured: Measured) -> Estimate | None:
    """Held-out error minus members' error, in squared data units; each member has the noise of its partner."""
    if measured.heldout_error is None or measured.members_error is None:
        return None
    name, label = "denoising_gap", "denoising gap (held-out - members)"
    estimate = mean_estimate(name, label, measured.sigmas, measured.heldout_error - measured.members_error, neutral=0.0)
    return replace(estimate, note=measured.shift or "")


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
        limits = fieller(gap_N, lead_N, confidence=confidence)
        if limits is not None and lead_N.mean() > MIN_LEAD * lead_N.std(ddof=1) / len(lead_N) ** 0.5:
            rows.append((sigma, float(gap_N.mean() / lead_N.mean()), *limits))
    sigmas, value, low, high = zip(*rows, strict=True) if rows else ((),) * 4
    label = "normalized gap (1: memorizer)"
    return Estimate("normalized_gap", label, sigmas, value, low, high, neutral=0.0, note=measured.shift or "")


def fieller(numerator_N: np.ndarray, denominator_N: np.ndarray, *, confidence: float) -> tuple[float, float] | None:
    """Confidence limits of the ratio of two paired means; None where they are unbounded.

    They enclose all g at which the paired t-test of `numerator_N - g * denominator_N` is not significant.

    Source: Fieller 1954, Some problems in interval estimation.
    """
    square = student.isf((1 - confidence) / 2, len(numerator_N) - 1) ** 2
    top, bottom = numerator_N.mean(), denominator_N.mean()
    (var_top, covariance), (_, var_bottom) = square * np.cov(numerator_N, denominator_N) / len(numerator_N)
    quadratic, half = bottom**2 - var_bottom, top * bottom - covariance
    if quadratic <= 0:
        return None
    root = max(half**2 - quadratic * (top**2 - var_top), 0) ** 0.5
    return float((half - root) / quadratic), float((half + root) / quadratic)
