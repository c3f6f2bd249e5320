"""LogisticProbe: the paper's probe, multinomial with an L2 penalty, all levels and layers in one optimisation."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot, pad
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from unimodal_monitor.probes.base import LinearClassifier, standardising_scale
from unimodal_monitor.probes.lbfgs import minimise

RAREST = 1e-6
"""Prior of a class that the fit images lack; a constant, so that a score does not depend on the batch."""


class Features(Metric):
    """Keeps the features of all levels of one layer in float32, and the labels."""

    full_state_update = False
    features: list[Tensor]
    labels: list[Tensor]

    def __init__(self, num_classes: int) -> None:
        super().__init__(sync_on_compute=False)
        self.num_classes = num_classes
        self.add_state("features", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, features_KND: Tensor, labels_N: Tensor) -> None:
        """Add (K, N, D) features of images of (N,) classes."""
        self.features.append(features_KND.transpose(0, 1))
        self.labels.append(labels_N)

    def compute(self) -> tuple[Tensor, Tensor]:
        """(K, N, D) features and (N,) labels of all images."""
        return dim_zero_cat(self.features).transpose(0, 1), dim_zero_cat(self.labels)


class LogisticProbe:
    """Multinomial logistic regression on standardised features, the intercept free.

    Minimises sum_i -log p(y_i | x_i) + |W|^2 / (2 C), as scikit-learn's `LogisticRegression(C=C)`. The features
    are rotated and scaled to the upper bound of the curvature (Boehning 1992), so that tens of steps converge
    where the plain problem takes hundreds.

    Args:
        C: inverse strength of the penalty, in scikit-learn's unit. One for all levels and checks, so that
            log-likelihoods compare.
        tolerance: a problem is solved when no gradient entry, in the rotated coordinates, exceeds this times the
            square root of the number of images.
        max_steps: of the optimiser.

    Raises:
        ValueError: if `C` is not positive.
    """

    score_name = "information (bits)"

    def __init__(self, C: float = 0.1, *, tolerance: float = 1e-5, max_steps: int = 300) -> None:
        if not C > 0:
            raise ValueError(f"C must be positive, got {C}")
        self.C = C
        self.tolerance = tolerance
        self.max_steps = max_steps

    def collector(self, num_levels: int, width: int, num_classes: int) -> Features:
        """All features of the fit images: this probe has no sums that would do."""
        return Features(num_classes)

    def fit(self, collected: Sequence[Metric]) -> list[LinearClassifier]:
        """Solve the levels of all layers as one batch of problems; see `Probe.fit`."""
        kept = [features for features in collected if isinstance(features, Features)]
        per_layer = [features.compute()[0] for features in kept]
        labels_N, num_classes = kept[0].compute()[1], kept[0].num_classes
        widths = [layer.shape[2] for layer in per_layer]
        x = torch.cat([pad(layer, (0, max(widths) - layer.shape[2])) for layer in per_layer])
        y_NC = one_hot(labels_N, num_classes).double()
        solved = [self._solve(part.double(), y_NC.T) for part in x.split(1 if x.device.type == "cpu" else len(x))]
        weight, bias, steps = (torch.cat(parts) for parts in zip(*solved, strict=True))
        num_levels = len(per_layer[0])
        return [
            LinearClassifier(w[:, :width], b, y_NC.mean(0), {"steps": s})
            for w, b, s, width in zip(*(t.split(num_levels) for t in (weight, bias, steps)), widths, strict=True)
        ]

    def score(self, scores_KNC: Tensor, labels_N: Tensor, prior_C: Tensor) -> Tensor:
        """Log-likelihood of the true class over that of the prior, in bits: (K, N)."""
        log_p_KNC = log_softmax(scores_KNC, dim=2)
        log_p_KN = log_p_KNC.gather(2, labels_N.expand(len(log_p_KNC), -1).unsqueeze(2)).squeeze(2)
        log_prior_N = prior_C.to(scores_KNC).clamp(min=RAREST).log()[labels_N]
        return (log_p_KN - log_prior_N) / math.log(2)

    def _solve(self, x: Tensor, y_CN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weights (P, D, C), biases (P, C) and steps (P,) for raw features x (P, N, D).

        Classes come before images and features: products of a few rows with many columns are fast on a CPU, the
        other way round they take twice the time. There one problem at a time is solved, for it fits in the cache.
        """
        num_problems, count, width = x.shape
        mean = x.mean(1, keepdim=True)
        x = x - mean
        scale = standardising_scale(x.square().sum(1), count)
        x = x * scale.unsqueeze(1)
        eigenvalues, vectors = torch.linalg.eigh(x.mT @ x)
        whiten = (0.5 * eigenvalues.clamp(min=0) + 1 / self.C).rsqrt()
        z = torch.cat(
            [x @ (vectors * whiten.unsqueeze(1)), x.new_full((num_problems, count, 1), (2 / count) ** 0.5)], 2
        )
        penalty = torch.cat([whiten.square() / self.C, whiten.new_zeros(num_problems, 1)], 1).unsqueeze(1)

        def objective(u: Tensor) -> tuple[Tensor, Tensor]:
            log_p = log_softmax(u @ z.mT, dim=1)
            value = -(log_p * y_CN).sum((1, 2)) + 0.5 * (penalty * u.square()).sum((1, 2))
            return value, (log_p.exp() - y_CN) @ z + penalty * u

        start = x.new_zeros(num_problems, len(y_CN), width + 1)
        u, steps = minimise(objective, start, tolerance=self.tolerance * count**0.5, max_steps=self.max_steps)
        weight = scale.unsqueeze(2) * (vectors @ (whiten.unsqueeze(2) * u[..., :-1].mT))
        bias = u[..., -1] * (2 / count) ** 0.5 - (mean @ weight).squeeze(1)
        return weight, bias, x.new_full((num_problems,), steps)
