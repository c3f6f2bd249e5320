"""RidgeProbe: least squares on one-hot labels in closed form, the levels of a layer solved as one batch."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import Metric

from unimodal_monitor.probes.base import LinearClassifier, standardising_scale
from unimodal_monitor.probes.moments import Moments


class RidgeProbe:
    """Ridge regression of one-hot labels on standardised features, the intercept free.

    Minimises mean |y - xw|^2 + strength |w|^2 over N images: scikit-learn's `alpha` is N * strength. Since the
    intercept is free, the scores of an image sum to one; they estimate probabilities and are scored by the
    Brier score.

    Args:
        strengths: positive. One is used at all levels and checks, so that scores compare; out of several, the
            best for each (layer, level) is chosen by generalized cross-validation (Golub, Heath and Wahba 1979).
            On the checkpoints that we measured, weaker ones and a chosen one show less of the rise, see benchmarks.

    Raises:
        ValueError: if a strength is not positive.
    """

    score_name = "Brier gain"

    def __init__(self, strengths: Sequence[float] = (0.3,)) -> None:
        if not strengths or min(strengths) <= 0:
            raise ValueError(f"strengths must be positive numbers, got {strengths}")
        self.strengths = strengths

    def collector(self, num_levels: int, width: int, num_classes: int) -> Moments:
        """Sums only: no feature is kept."""
        return Moments(num_levels, width, num_classes)

    def fit(self, collected: Sequence[Metric]) -> list[LinearClassifier]:
        """Solve every layer; see `Probe.fit`."""
        return [self._fit_layer(moments) for moments in collected if isinstance(moments, Moments)]

    def score(self, scores_KNC: Tensor, labels_N: Tensor, prior_C: Tensor) -> Tensor:
        """Brier score of the prior minus that of the probe, from the smallest -3 to the best 1: (K, N)."""
        truth_NC = one_hot(labels_N, scores_KNC.shape[2]).to(scores_KNC)
        of_prior_N = (prior_C.to(scores_KNC) - truth_NC).square().sum(1)
        return of_prior_N - (scores_KNC - truth_NC).square().sum(2)

    def _fit_layer(self, moments: Moments) -> LinearClassifier:
        mean_KD, scatter_KDD, cross_KDC = moments.compute()
        count, prior_C = moments.count, moments.sum_y_C / moments.count
        scale_KD = standardising_scale(scatter_KDD.diagonal(dim1=1, dim2=2), count)
        scatter_KDD = scatter_KDD * scale_KD.unsqueeze(2) * scale_KD.unsqueeze(1)
        cross_KDC = cross_KDC * scale_KD.unsqueeze(2)
        if len(self.strengths) == 1:
            solved_KDC, strength_K = self._solve(scatter_KDD, cross_KDC, count)
        else:
            solved_KDC, strength_K = self._solve_best(scatter_KDD, cross_KDC, prior_C, count)
        weight_KDC = scale_KD.unsqueeze(2) * solved_KDC
        bias_KC = prior_C - (mean_KD.unsqueeze(1) @ weight_KDC).squeeze(1)
        return LinearClassifier(weight_KDC, bias_KC, prior_C, {"strength": strength_K / count})

    def _solve(self, scatter_KDD: Tensor, cross_KDC: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """One strength: Cholesky."""
        strength_K = count * self.strengths[0] * torch.ones_like(cross_KDC[:, 0, 0])
        ridge_KDD = scatter_KDD + torch.diag_embed(strength_K.unsqueeze(1).expand(scatter_KDD.shape[:2]))
        return torch.cholesky_solve(cross_KDC, torch.linalg.cholesky(ridge_KDD)), strength_K

    def _solve_best(
        self, scatter_KDD: Tensor, cross_KDC: Tensor, prior_C: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Several strengths: one eigendecomposition serves them all."""
        eigenvalues_KD, vectors_KDD = torch.linalg.eigh(scatter_KDD)
        eigenvalues_KD = eigenvalues_KD.clamp(min=0)
        rotated_KDC = vectors_KDD.mT @ cross_KDC
        scatter_of_labels = count * (1 - prior_C.square().sum())
        strength_K = self._choose(eigenvalues_KD, rotated_KDC, scatter_of_labels, count)
        shrunk_KDC = rotated_KDC / (eigenvalues_KD + strength_K.unsqueeze(1)).unsqueeze(2)
        return vectors_KDD @ shrunk_KDC, strength_K

    def _choose(self, eigenvalues_KD: Tensor, rotated_KDC: Tensor, scatter_of_labels: Tensor, count: Tensor) -> Tensor:
        """(K,) strengths of least generalized cross-validation score: residual / (1 - degrees / count)^2."""
        strengths_S = count * count.new_tensor(list(self.strengths))
        shrink_SKD = 1 / (eigenvalues_KD + strengths_S[:, None, None])
        energy_KD = rotated_KDC.square().sum(2)
        explained_SK = (energy_KD * (2 * shrink_SKD - eigenvalues_KD * shrink_SKD.square())).sum(2)
        degrees_SK = 1 + (eigenvalues_KD * shrink_SKD).sum(2)
        gcv_SK = (scatter_of_labels - explained_SK) / (1 - degrees_SK / count).clamp(min=1e-6).square()
        return strengths_S[gcv_SK.argmin(0)]
