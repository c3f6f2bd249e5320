"""The contract of a probe, and what the probes of this package share."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot
from torchmetrics import Metric

RAREST = 1e-6  # prior of a class that the fit images lack; a constant, so that a score does not depend on the batch


@dataclass(frozen=True, eq=False)
class Classifier:
    """A fitted probe of one layer, for all levels."""

    scores: Callable[[Tensor], Tensor]  # (K, N, C) of (K, N, D) features; the highest one is the predicted class
    prior_C: Tensor  # frequencies of the classes among the images of the fit


@runtime_checkable
class Probe(Protocol):
    """A classifier of features, fitted for all levels of a layer at once."""

    score_name: str
    """What `score` measures, with its unit, as an axis is labelled."""

    def collector(self, num_levels: int, width: int, num_classes: int) -> Metric:
        """What the probe keeps of one layer's features: a Metric with `update(features_KND, labels_N)`."""

    def fit(self, collected: Any) -> Classifier:
        """A classifier of one layer, from its updated collector."""

    def score(self, scores_KNC: Tensor, labels_N: Tensor, prior_C: Tensor) -> Tensor:
        """How well each image is predicted, compared with always answering the prior: (K, N), more is better."""


def affine_scores(features_KND: Tensor, *, mean_KD: Tensor, weight_KDC: Tensor, bias_KC: Tensor) -> Tensor:
    """(K, N, C) scores from centred features, computed in float64, autocast or not."""
    with torch.autocast(features_KND.device.type, enabled=False):
        centred_KND = features_KND.double() - mean_KD.unsqueeze(1)
        return torch.baddbmm(bias_KC.unsqueeze(1), centred_KND, weight_KDC)


def standardising_scale(variance_KD: Tensor, mean_KD: Tensor) -> Tensor:
    """(K, D) factors that give every feature unit variance; zero for a feature that is constant up to rounding.

    That is a spread under 1e-6 of the widest feature's, or under 1e-7 of its own mean, which float32 cannot resolve.
    """
    floor_KD = torch.maximum(1e-12 * variance_KD.amax(1, keepdim=True), 1e-14 * mean_KD.square()).clamp(min=1e-38)
    return torch.where(variance_KD > floor_KD, variance_KD.clamp(min=1e-38).rsqrt(), 0.0)


def brier_gain(scores_KNC: Tensor, labels_N: Tensor, prior_C: Tensor) -> Tensor:
    """Brier score of the prior minus that of scores that estimate probabilities, at best 1: (K, N)."""
    truth_NC = one_hot(labels_N, scores_KNC.shape[2]).to(scores_KNC)
    of_prior_N = (prior_C.to(scores_KNC) - truth_NC).square().sum(1)
    return of_prior_N - (scores_KNC - truth_NC).square().sum(2)


def information(scores_KNC: Tensor, labels_N: Tensor, prior_C: Tensor) -> Tensor:
    """Log-likelihood of the true class by scores that are logits, minus that of the prior, in bits: (K, N)."""
    log_p_KNC = log_softmax(scores_KNC, dim=2)
    log_p_KN = log_p_KNC.gather(2, labels_N.expand(len(log_p_KNC), -1).unsqueeze(2)).squeeze(2)
    log_prior_N = prior_C.to(log_p_KNC).clamp(min=RAREST).log()[labels_N]
    return (log_p_KN - log_prior_N) / math.log(2)
