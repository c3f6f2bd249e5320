"""RidgeProbe: least squares on one-hot labels in closed form, the levels of a layer solved as one batch."""

import math
from functools import partial

import torch

from unimodal_monitor.probes.base import Classifier, affine_scores, brier_gain, standardising_scale
from unimodal_monitor.probes.moments import Moments


class RidgeProbe:
    """Ridge regression of one-hot labels on standardised features with a free intercept.

    Minimises mean |y - xw|^2 + strength |w|^2 over N images: scikit-learn's `alpha` is N * strength. The scores of
    an image sum to one; they estimate probabilities and are scored by the Brier score.

    Args:
        strength: Strength of the penalty, one for all levels and checks, so that scores compare. On the checkpoints
            that we measured weaker penalties show less of the rise.

    Raises:
        ValueError: If the strength is not positive and finite.

    >>> probe = RidgeProbe()
    >>> collector = probe.collector(num_levels=1, width=1, num_classes=2)
    >>> collector.update(torch.tensor([[[0.0], [4.0], [1.0], [5.0]]]), torch.tensor([0, 1, 0, 1]))
    >>> probe.fit(collector).scores(torch.tensor([[[0.5], [4.5]]])).argmax(2)
    tensor([[0, 1]])
    """

    score_name = "Brier gain"
    score = staticmethod(brier_gain)

    def __init__(self, strength: float = 0.3) -> None:
        if not 0 < strength < math.inf:
            raise ValueError(f"strength must be positive and finite, got {strength}")
        self.strength = strength

    def collector(self, num_levels: int, width: int, num_classes: int) -> Moments:
        """Keep sums over the fit images only."""
        return Moments(num_levels, width, num_classes)

    def fit(self, collected: Moments) -> Classifier:
        """Solve all levels; see `Probe.fit`."""
        count, prior_C = collected.count, collected.sum_y_C / collected.count
        with torch.autocast(count.device.type, enabled=False):
            mean_KD, scatter_KDD, cross_KDC = collected.centred()
            variance_KD = scatter_KDD.diagonal(dim1=1, dim2=2).clamp(min=0) / count
            scale_KD = standardising_scale(variance_KD, mean_KD)
            scatter_KDD = scatter_KDD * scale_KD.unsqueeze(2) * scale_KD.unsqueeze(1)
            ridge_KDD = scatter_KDD + torch.diag_embed(torch.ones_like(mean_KD) * count * self.strength)
            solved_KDC = torch.cholesky_solve(cross_KDC * scale_KD.unsqueeze(2), torch.linalg.cholesky(ridge_KDD))
        weight_KDC, bias_KC = scale_KD.unsqueeze(2) * solved_KDC, prior_C.expand(len(mean_KD), -1)
        scores = partial(affine_scores, mean_KD=mean_KD, weight_KDC=weight_KDC, bias_KC=bias_KC)
        return Classifier(scores, prior_C)
