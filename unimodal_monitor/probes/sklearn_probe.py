"""SklearnProbe: any classifier of scikit-learn as a probe; and `as_probe`, the probe that a user means."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from unimodal_monitor.probes.base import RAREST, Classifier, Probe, brier_gain, information
from unimodal_monitor.probes.features import Features
from unimodal_monitor.probes.ridge import RidgeProbe

LEAST_SHARE = 0.01
"""Smallest probability that a class is given, as a share of its prior: nearest neighbours answer zero."""


class SklearnProbe:
    """Any classifier of scikit-learn, cloned and fitted for each level and layer on standardised features.

    Scored in bits as LogisticProbe where the estimator has `predict_proba`, by the Brier gain of its predictions
    otherwise. Slower than the probes of this package: with 3,000 images of 256 features `LogisticRegression` took
    twice the time of LogisticProbe and 13 times that of RidgeProbe, nearest neighbours about as long.

    Args:
        estimator: Classifier of scikit-learn, not fitted; a random one needs a `random_state`.

    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> SklearnProbe(KNeighborsClassifier()).score_name
    'information (bits)'
    """

    def __init__(self, estimator: Any) -> None:
        from sklearn.base import BaseEstimator, is_classifier

        if not isinstance(estimator, BaseEstimator) or not is_classifier(estimator):
            raise ValueError(
                "a probe is None, a Probe such as LogisticProbe(), or a classifier of scikit-learn such as "
                f"LogisticRegression(); got {estimator!r}"
            )
        self.estimator = estimator
        has_probabilities = hasattr(estimator, "predict_proba")
        self.score_name = "information (bits)" if has_probabilities else "Brier gain"
        self.score = information if has_probabilities else brier_gain

    def collector(self, num_levels: int, width: int, num_classes: int) -> Features:
        """Keep all features of the fit images."""
        return Features(num_classes)

    def fit(self, collected: Features) -> Classifier:
        """Fit every level; see `Probe.fit`."""
        from sklearn.base import clone
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        features_KND, labels_N = (values.cpu() for values in collected.compute())
        fresh = (make_pipeline(StandardScaler(), clone(self.estimator)) for _ in features_KND)
        pairs = zip(fresh, features_KND.double().numpy(), strict=True)
        estimators = [estimator.fit(x_ND, labels_N.numpy()) for estimator, x_ND in pairs]
        prior_C = one_hot(labels_N, collected.num_classes).double().mean(0)
        return Classifier(partial(_scores, estimators=estimators, prior_C=prior_C), prior_C)


def _scores(features_KND: Tensor, *, estimators: Sequence[Any], prior_C: Tensor) -> Tensor:
    """(K, N, C) log-probabilities, computed on the CPU; without `predict_proba`, 1 for the predicted class."""
    scores = []
    for estimator, x_ND in zip(estimators, features_KND.double().cpu().numpy(), strict=True):
        if hasattr(estimator, "predict_proba"):
            p_NC = torch.zeros(len(x_ND), len(prior_C), dtype=torch.float64)
            p_NC[:, estimator.classes_] = torch.from_numpy(estimator.predict_proba(x_ND)).double()
            scores.append(p_NC.maximum(LEAST_SHARE * prior_C.clamp(min=RAREST)).log())
        else:
            scores.append(one_hot(torch.from_numpy(estimator.predict(x_ND)), len(prior_C)).double())
    return torch.stack(scores).to(features_KND.device)


def as_probe(probe: Any) -> Probe:
    """`RidgeProbe()` for None, a Probe as it is, a classifier of scikit-learn as a SklearnProbe, or a ValueError."""
    if probe is None:
        return RidgeProbe()
    return probe if isinstance(probe, Probe) and not isinstance(probe, type) else SklearnProbe(probe)
