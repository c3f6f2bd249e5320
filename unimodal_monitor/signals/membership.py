"""Membership: how well the denoising error of an image tells whether it is a member."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from unimodal_monitor.signals.growth import telling_levels
from unimodal_monitor.signals.measured import Measured
from unimodal_monitor.signals.spread import auc_interval, delong
from unimodal_monitor.stats.estimate import Estimate, finite_array

FALSE_POSITIVE_RATE = 0.01
MIN_HELDOUT = 100
"""Held-out images that it takes to see a false-positive rate of 1 %."""


@dataclass(frozen=True)
class Membership:
    """How well members are told from held-out images, of one check.

    Without memorization the AUROC is 0.5, and the two shares are about 0.01 each.
    """

    auroc: float  # probability that a member has a higher score than a held-out image
    auroc_low: float  # confidence limits
    auroc_high: float
    tpr_at_1_percent: float | None  # members above all but 1 % of the held-out images; None with too few of those
    share_told_apart: float | None  # members with a conformal p-value below 0.01; None with too few held-out images


def membership_auc(measured: Measured) -> Estimate | None:
    """AUROC of members against held-out images, level by level."""
    rows = [(sigma, found.auroc, found.auroc_low, found.auroc_high) for sigma, found in _by_level(measured)]
    return _estimate("membership_auc", "AUC of membership", rows, neutral=0.5)


def membership_tpr(measured: Measured) -> Estimate | None:
    """Share of the members above all but 1 % of the held-out images, level by level, with exact 95 % limits."""
    rows = [(sigma, found.tpr_at_1_percent) for sigma, found in _by_level(measured)]
    return _estimate("membership_tpr", "members found at 1 % false", _with_limits(rows, measured), neutral=0.0)


def members_told_apart(measured: Measured) -> Estimate | None:
    """Share of the members that are told from held-out images, level by level, with exact 95 % limits."""
    rows = [(sigma, found.share_told_apart) for sigma, found in _by_level(measured)]
    return _estimate("members_told_apart", "members told apart (share)", _with_limits(rows, measured), neutral=0.0)


def _with_limits(rows: Sequence[tuple[float, float | None]], measured: Measured) -> list[tuple[float, ...]]:
    num = 0 if measured.members_error is None else measured.members_error.shape[1]
    shares = [(sigma, share, binomtest(round(share * num), num)) for sigma, share in rows if share is not None]
    return [(sigma, share, *test.proportion_ci()) for sigma, share, test in shares]


def _estimate(name: str, label: str, rows: Sequence[tuple[float, ...]], *, neutral: float) -> Estimate | None:
    sigmas, value, low, high = zip(*rows, strict=True) if rows else ((),) * 4
    return Estimate(name, label, sigmas, value, low, high, neutral=neutral) if rows else None


def _by_level(measured: Measured) -> Iterator[tuple[float, Membership]]:
    """At the levels that tell members apart, where the errors were measured."""
    if measured.members_error is None or measured.heldout_error is None:
        return
    none = torch.zeros(measured.members_error.shape[1], 0)
    covariates = measured.members_covariates, measured.heldout_covariates
    members_PS, heldout_PS = (none if values is None else values for values in covariates)
    for level in telling_levels(measured).nonzero()[:, 0].tolist():
        both = measured.members_error, measured.heldout_error
        members_1P, heldout_1P = (error_KP[level : level + 1].clamp_min(1e-30) for error_KP in both)
        yield (
            float(measured.sigmas[level]),
            membership(members_1P, heldout_1P, members_covariates_PS=members_PS, heldout_covariates_QS=heldout_PS),
        )


def membership(
    members_error_KP: Tensor,
    heldout_error_KQ: Tensor,
    *,
    members_covariates_PS: Tensor,
    heldout_covariates_QS: Tensor,
    confidence: float = 0.95,
) -> Membership:
    """Membership from denoising errors that are adjusted for how hard each image is.

    The score of an image is minus the residual of its log error, averaged over the levels. Log errors are regressed on
    image statistics over held-out images alone; each of these is judged by the regression without it.

    The conformal p-value of a member is (1 + number of held-out scores not below its own) / (Q + 1). Of no member it is
    below 0.01 by more than chance if the network treats members and held-out images alike.

    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> members, heldout = torch.rand(2, 3, 200, generator=generator) + 1
    >>> statistics = torch.randn(2, 200, 4, generator=generator)
    >>> covariates = {"members_covariates_PS": statistics[0], "heldout_covariates_QS": statistics[1]}
    >>> found = membership(members / 4, heldout, **covariates)
    >>> found.auroc, found.tpr_at_1_percent, found.share_told_apart
    (1.0, 1.0, 1.0)

    Args:
        members_error_KP: Mean squared errors at K levels of P members, positive, in any unit.
        heldout_error_KQ: The same of Q held-out images.
        members_covariates_PS: S statistics of each member's clean image, such as its log standard deviation; not the
            network's own errors at low noise, which are memorized too.
        heldout_covariates_QS: The same of the held-out images.
        confidence: Confidence of the AUROC's limits (DeLong).

    Raises:
        ValueError: If there are fewer than 2 members or S + 3 held-out images, or shapes do not match.
        FloatingPointError: If the logarithm of an error, or a statistic, is not finite.
    """
    num_members, num_heldout = _checked_sizes(
        members_error_KP, heldout_error_KQ, members_covariates_PS, heldout_covariates_QS
    )
    errors = (members_error_KP, heldout_error_KQ)
    members_log_P, heldout_log_Q = (finite_array("log error", error.double().log()).mean(0) for error in errors)
    covariates = (members_covariates_PS, heldout_covariates_QS)
    members_PS, heldout_QS = (finite_array("image statistic", values) for values in covariates)
    scores = adjusted_scores(members_log_P, heldout_log_Q, members_PS=members_PS, heldout_QS=heldout_QS)
    auroc, error = delong(*(score[None] for score in scores))
    low, high = auc_interval(auroc, error, num_images=min(num_members, num_heldout), confidence=confidence)
    shares = shares_above(*scores) if num_heldout >= MIN_HELDOUT else (None, None)
    return Membership(float(auroc[0]), float(low[0]), float(high[0]), *shares)


def _checked_sizes(*tensors: Tensor) -> tuple[int, int]:
    """Numbers of members and of held-out images."""
    shapes = [tuple(tensor.shape) for tensor in tensors]
    (num_levels, num_members), (same_levels, num_heldout), members_shape, heldout_shape = shapes
    num_statistics = heldout_shape[-1]
    wanted = [(num_members, num_statistics), (num_heldout, num_statistics)]
    if num_levels != same_levels or [members_shape, heldout_shape] != wanted:
        raise ValueError(f"need errors (K, P) and (K, Q), and statistics (P, S) and (Q, S), got {shapes}")
    if num_members < 2 or num_heldout < num_statistics + 3:
        need = f"2 members and {num_statistics + 3} held-out images for {num_statistics} statistics"
        raise ValueError(f"need at least {need}, got {num_members} and {num_heldout}")
    return num_members, num_heldout


def adjusted_scores(
    members_P: np.ndarray, heldout_Q: np.ndarray, *, members_PS: np.ndarray, heldout_QS: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Minus the residuals of log errors, by a linear regression on statistics over held-out images.

    A held-out image's residual is that of the regression without it: the residual over one minus its leverage.
    Statistics that do not vary, or follow from others, add nothing.
    """
    center, scale = heldout_QS.mean(0), np.maximum(heldout_QS.std(0), 1e-12 * np.abs(heldout_QS).max(0) + 1e-300)
    design_P, design_Q = (np.column_stack([np.ones(len(x)), (x - center) / scale]) for x in (members_PS, heldout_QS))
    left, singular, right = np.linalg.svd(design_Q, full_matrices=False)
    kept = singular > 1e-9 * singular[0]
    left = left[:, kept]
    coefficients = right[kept].T @ (left.T @ heldout_Q / singular[kept])
    leverage = np.square(left).sum(1)
    heldout_residual = (heldout_Q - design_Q @ coefficients) / np.maximum(1 - leverage, 1e-9)
    return design_P @ coefficients - members_P, -heldout_residual


def shares_above(members_P: np.ndarray, heldout_Q: np.ndarray) -> tuple[float, float]:
    """Shares of members' scores above held-out scores: at a false-positive rate of at most 1 %, and with p < 0.01.

    The first is a point of the ROC curve of these images, without interpolation. The second bounds the probability that
    a new held-out image would be taken for a member, and so is the lower one.
    """
    ascending = np.sort(heldout_Q)
    num_not_below_P = len(ascending) - np.searchsorted(ascending, members_P, side="left")
    detected_P = num_not_below_P / len(ascending) <= FALSE_POSITIVE_RATE
    p_value_P = (1 + num_not_below_P) / (1 + len(ascending))
    return float(detected_P.mean()), float((p_value_P < FALSE_POSITIVE_RATE).mean())
