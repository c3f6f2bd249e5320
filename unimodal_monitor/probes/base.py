"""The contract of a probe, and the linear classifier that every probe ends in."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torchmetrics import Metric


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """Scores that are affine in the features, for all levels of one layer.

    Args:
        weight_KDC: (K, D, C).
        bias_KC: (K, C).
        prior_C: (C,) frequencies of the classes among the images of the fit.
        info: figures about the fit by name, (K,) each, such as the strength chosen.
    """

    weight_KDC: Tensor
    bias_KC: Tensor
    prior_C: Tensor
    info: dict[str, Tensor]

    def to(self, device: torch.device) -> "LinearClassifier":
        """The same on a device, for features there."""
        return replace(
            self,
            weight_KDC=self.weight_KDC.to(device, torch.float32),
            bias_KC=self.bias_KC.to(device, torch.float32),
            prior_C=self.prior_C.to(device, torch.float32),
        )

    def scores(self, features_KND: Tensor) -> Tensor:
        """(K, N, C) of (K, N, D) features."""
        weight = self.weight_KDC.to(features_KND)
        return torch.baddbmm(self.bias_KC.to(features_KND).unsqueeze(1), features_KND, weight)


class Probe(Protocol):
    """A linear probe for all levels and layers at once."""

    score_name: str
    """What `score` measures, and its unit, as an axis is labelled."""

    def collector(self, num_levels: int, width: int, num_classes: int) -> Metric:
        """What the probe keeps of one layer's features: a Metric with `update(features_KND, labels_N)`."""
        ...

    def fit(self, collected: Sequence[Metric]) -> list[LinearClassifier]:
        """A classifier for every layer.

        Args:
            collected: what `collector` made, one for each layer, after the updates.
        """
        ...

    def score(self, scores_KNC: Tensor, labels_N: Tensor, prior_C: Tensor) -> Tensor:
        """How well each image was predicted, against always answering with the prior: (K, N), more is better.

        Args:
            scores_KNC: what the classifier gave.
            labels_N: the true classes.
            prior_C: frequencies of the classes among the images of the fit.
        """
        ...


def standardising_scale(scatter_diagonal_KD: Tensor, count: Tensor | int) -> Tensor:
    """(K, D) factors that give every feature unit variance; constant features are left out by a factor of zero."""
    variance = scatter_diagonal_KD.clamp(min=0) / count
    floor = 1e-12 * variance.amax(1, keepdim=True).clamp(min=1e-30)
    return torch.where(variance > floor, variance.clamp(min=1e-38).rsqrt(), 0.0)
