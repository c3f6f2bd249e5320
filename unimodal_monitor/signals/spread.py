"""Activation spread: members activate few features strongly where held-out images activate many."""

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

from unimodal_monitor.signals.measured import Measured
from unimodal_monitor.stats.estimate import Estimate, finite_array


def spread_auc(measured: Measured, *, confidence: float = 0.95) -> Estimate | None:
    """Probability that a member has a larger spread than a held-out image, level by level.

    The spread is the standard deviation of all that a layer puts out for an image, channels and positions together,
    before any pooling: means over positions do not tell members from held-out images (benchmarks).

    Source: arXiv 2512.20963, where it detects single memorized samples; here it compares two sets.
    """
    if measured.members_spread is None or measured.heldout_spread is None:
        return None
    spreads = measured.members_spread, measured.heldout_spread
    members_KN, heldout_KN = (finite_array("activation spread", spread_KN) for spread_KN in spreads)
    auc_K, error_K = delong(members_KN, heldout_KN)
    low_K, high_K = auc_interval(auc_K, error_K, num_images=members_KN.shape[1], confidence=confidence)
    sigmas, auc, low, high = (tuple(row_K.tolist()) for row_K in (measured.sigmas, auc_K, low_K, high_K))
    return Estimate("spread_auc", "AUC of activation spread", sigmas, auc, low, high, neutral=0.5)


def delong(positive_KN: np.ndarray, negative_KM: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K,) AUCs of scores that should be higher in the first set, and their standard errors; ties count half.

    Noise shared between the sets is not used. It would make the errors smaller, so that they are on the safe side.

    Source: DeLong et al. 1988, Biometrics 44; from ranks as in Sun and Xu 2014.
    """
    num, num_negative = positive_KN.shape[1], negative_KM.shape[1]
    ranks = rankdata(np.concatenate([positive_KN, negative_KM], 1), axis=1)
    above_KN = (ranks[:, :num] - rankdata(positive_KN, axis=1)) / num_negative
    below_KM = (ranks[:, num:] - rankdata(negative_KM, axis=1)) / num
    return above_KN.mean(1), np.sqrt(above_KN.var(1, ddof=1) / num + below_KM.var(1, ddof=1) / num_negative)


def auc_interval(
    auc_K: np.ndarray, error_K: np.ndarray, *, num_images: int, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """(K,) limits that are symmetric in the logit, and so stay within 0 and 1.

    Sets that do not overlap have an error of 0. Their limit is the AUC at which `num_images` disjoint pairs, as many as
    each set has images, are all in order with the probability of the tail.
    """
    tail = (1 - confidence) / 2
    edge, is_inside = tail ** (1 / num_images), (auc_K > 0) & (auc_K < 1)
    inside_K = np.where(is_inside, auc_K, 0.5)
    reach_K = norm.isf(tail) * error_K / (inside_K * (1 - inside_K))
    low_K = np.where(is_inside, expit(logit(inside_K) - reach_K), auc_K * edge)
    return low_K, np.where(is_inside, expit(logit(inside_K) + reach_K), 1 - (1 - auc_K) * edge)
