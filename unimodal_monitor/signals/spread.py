"""Spikiness: whether members light up few features where held-out images light up many."""

from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import norm
from torch import Tensor

from unimodal_monitor.signals.base import Signal, as_lists


@dataclass(frozen=True, eq=False)
class Spikes:
    """How well spikiness tells members from held-out images.

    Args:
        auc_K: (K,) probability that a member is spikier than a held-out image; 0.5 tells nothing.
        low_K: (K,) lower end of the confidence interval.
        high_K: (K,) upper end.
        members_K: (K,) mean spikiness of the members, in units of the features.
        heldout_K: (K,) of the held-out images.
        confidence: of the interval at each level.
        members_KN: (K, N) spikiness by member, in the order of their numbers.
        heldout_KN: (K, N) by held-out image; the number of images may differ.
    """

    auc_K: Tensor
    low_K: Tensor
    high_K: Tensor
    members_K: Tensor
    heldout_K: Tensor
    confidence: float
    members_KN: Tensor
    heldout_KN: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Primitives only, without the figures of single images."""
        return as_lists({name: value for name, value in vars(self).items() if not name.endswith("_KN")})


class Spikiness(Signal):
    """Standard deviation of all that a layer puts out for an image, members against held-out images, by level.

    Over channels and positions together, before any pooling: means over positions do not tell them apart (benchmarks).

    Args:
        num_levels: K.
        confidence: of the intervals.

    Source: arXiv 2512.20963, where it detects memorized samples; here it is taken over a set.
    """

    def __init__(self, num_levels: int, *, confidence: float = 0.95) -> None:
        super().__init__(num_levels, roles=("members", "heldout"))
        self.confidence = confidence

    def update(self, spread_KN: Tensor, indices_N: Tensor, *, is_member: bool) -> None:
        """Add images of one role.

        Args:
            spread_KN: (K, N) standard deviations, such as `output.flatten(1).std(1)` of a layer's output at each level.
            indices_N: (N,) numbers of the images within their role.
            is_member: whether the network trains on them.

        Raises:
            ValueError: if the shapes do not fit.
        """
        if spread_KN.ndim != 2:
            raise ValueError(f"the standard deviations must have shape (K, N), got {tuple(spread_KN.shape)}")
        self._keep("members" if is_member else "heldout", spread_KN, indices_N)

    def compute(self) -> Spikes:
        """The comparison of all images so far.

        Raises:
            FloatingPointError: if a feature is not finite.
            ValueError: if a role has fewer than two images.
        """
        members_KN, heldout_KN = (self._kept(role)[0].squeeze(2) for role in ("members", "heldout"))
        auc_K, error_K = delong(members_KN, heldout_KN)
        fewer = min(members_KN.shape[1], heldout_KN.shape[1])
        low_K, high_K = auc_interval(auc_K, error_K, num_images=fewer, confidence=self.confidence)
        return Spikes(
            auc_K=auc_K,
            low_K=low_K,
            high_K=high_K,
            members_K=members_KN.mean(1),
            heldout_K=heldout_KN.mean(1),
            confidence=self.confidence,
            members_KN=members_KN,
            heldout_KN=heldout_KN,
        )


def delong(positive_KN: Tensor, negative_KN: Tensor) -> tuple[Tensor, Tensor]:
    """AUC and its standard error, (K,) each; ties count half.

    Noise shared between the two sets is not used, which errs on the safe side: it makes errors smaller.

    Args:
        positive_KN: (K, N) scores that should be higher.
        negative_KN: (K, N) scores that should be lower; the number may differ.

    Source: DeLong et al. 1988, Biometrics 44; by sorting as Sun and Xu 2014.
    """
    above_KN = _share_below(positive_KN, negative_KN)
    below_KN = 1 - _share_below(negative_KN, positive_KN)
    variance_K = above_KN.var(1) / above_KN.shape[1] + below_KN.var(1) / below_KN.shape[1]
    return above_KN.mean(1), variance_K.sqrt()


def auc_interval(auc_K: Tensor, error_K: Tensor, *, num_images: int, confidence: float) -> tuple[Tensor, Tensor]:
    """Ends (K,) of an interval that is symmetric in the logit and so stays within 0 and 1.

    Where the sets do not overlap the error is 0, which claims too much: as many disjoint pairs as the smaller set has
    images were all in order, and the end is the probability at which that still happens in the tail.

    Args:
        auc_K: (K,).
        error_K: (K,) standard errors.
        num_images: of the smaller set.
        confidence: of the interval.
    """
    tail = (1 - confidence) / 2
    is_inside = (auc_K > 0) & (auc_K < 1)
    inside_K = torch.where(is_inside, auc_K, 0.5)
    reach_K = float(norm.isf(tail)) * error_K / (inside_K * (1 - inside_K))
    low_K, high_K = ((inside_K.logit() + sign * reach_K).sigmoid() for sign in (-1, 1))
    edge = tail ** (1 / num_images)
    low_K = torch.where(is_inside, low_K, auc_K * edge)
    return low_K, torch.where(is_inside, high_K, 1 - (1 - auc_K) * edge)


def _share_below(values_KN: Tensor, others_KN: Tensor) -> Tensor:
    """(K, N) share of the others that are lower than a value, an equal one by half."""
    ordered, values = others_KN.sort(1).values.contiguous(), values_KN.contiguous()
    ranks = torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True)
    return ranks.double() / (2 * others_KN.shape[1])
