"""ClassSNR: how much of the features lies in the subspace of the image's own class, the paper's SNR."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unimodal_monitor.signals.base import Signal, as_lists

MAX_ENTRIES = 2e8
"""Of the sums of squares: 1.6 GB."""


@dataclass(frozen=True, eq=False)
class SNR:
    """The SNR at all levels.

    Args:
        snr_K: (K,) averages over the classes.
        snr_KC: (K, C) by class, in the order of `classes_C`.
        classes_C: (C,) the classes that have images.
        counts_C: (C,) their numbers of images.
    """

    snr_K: Tensor
    snr_KC: Tensor
    classes_C: Tensor
    counts_C: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Primitives only."""
        return as_lists(vars(self))


class ClassSNR(Signal):
    """Ratio of the energy within the principal subspace of a class to the energy outside it, by level.

    Features are divided by their norm and the mean of all images is taken off. Subspaces are fitted to the same
    images, so that few images per feature flatter all levels alike. Sums are kept and not features.

    It stays outside the checks. The few hundred images that witnesses hear would flatter it by a third or more, and on
    real features nearly all of it remains when the labels are shuffled (benchmarks): compare with that before use.

    Args:
        num_levels: K.
        width: D, feature width of the layer.
        num_classes: C.
        num_directions: that span the subspace of a class.

    Raises:
        ValueError: if the subspaces would fill the features, or the sums are too large to keep.

    Source: Li et al. 2025 (arXiv 2502.05743), definition 1, on features as in its appendix.
    """

    count_C: Tensor
    sum_x_KCD: Tensor
    sum_xx_KCDD: Tensor

    def __init__(self, num_levels: int, width: int, num_classes: int, *, num_directions: int = 5) -> None:
        super().__init__(num_levels, roles=())
        if not 0 < num_directions < width:
            raise ValueError(f"num_directions = {num_directions}; it lies between 0 and the width, {width}")
        entries = num_classes * num_levels * width**2
        if entries > MAX_ENTRIES:
            raise ValueError(
                f"{num_classes} classes, {num_levels} levels and {width} features need {entries:.1e} sums, above "
                f"{MAX_ENTRIES:.0e}; give fewer levels, a narrower layer or coarser classes"
            )
        self.num_classes = num_classes
        self.num_directions = num_directions
        shapes = {
            "count_C": (num_classes,),
            "sum_x_KCD": (num_levels, num_classes, width),
            "sum_xx_KCDD": (num_levels, num_classes, width, width),
        }
        for name, shape in shapes.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, features_KND: Tensor, labels_N: Tensor) -> None:
        """Add images.

        Args:
            features_KND: (K, N, D) float.
            labels_N: (N,) integers below `num_classes`.
        """
        x = features_KND.detach().double()
        x = x / x.norm(dim=2, keepdim=True).clamp(min=1e-300)
        for label in range(self.num_classes):
            is_class_N = (labels_N == label).double()
            x_class = x * is_class_N.unsqueeze(1)
            self.count_C[label] += is_class_N.sum()
            self.sum_x_KCD[:, label] += x_class.sum(1)
            self.sum_xx_KCDD[:, label] += x_class.mT @ x

    def compute(self) -> SNR:
        """The SNR of all images so far.

        Raises:
            FloatingPointError: if a feature is not finite, or a class has no energy outside its subspace.
            ValueError: if a class has some images, but too few to have any energy outside.
        """
        counts_C, sum_x, sum_xx = (state.cpu() for state in (self.count_C, self.sum_x_KCD, self.sum_xx_KCDD))
        classes_C = counts_C.nonzero()[:, 0]
        self._check(counts_C[classes_C], classes_C, sum_x)
        count, sum_x, sum_xx = counts_C[classes_C, None, None], sum_x[:, classes_C], sum_xx[:, classes_C]
        mean = sum_x.sum(1, keepdim=True) / count.sum()
        cross = sum_x.unsqueeze(3) * mean.unsqueeze(2)
        second_KCDD = sum_xx - cross - cross.mT + count * mean.unsqueeze(3) * mean.unsqueeze(2)
        energies_KCD = torch.linalg.eigvalsh(second_KCDD)
        outside_KC, inside_KC = (part.sum(2) for part in energies_KCD.tensor_split([-self.num_directions], dim=2))
        if not (outside_KC > 1e-12 * inside_KC).all():
            raise FloatingPointError(
                f"a class has no energy outside its {self.num_directions} directions; give fewer `num_directions`"
            )
        snr_KC = inside_KC / outside_KC
        return SNR(snr_KC.mean(1), snr_KC, classes_C, counts_C[classes_C].long())

    def _check(self, counts_C: Tensor, classes_C: Tensor, sum_x: Tensor) -> None:
        if not sum_x.isfinite().all():
            raise FloatingPointError("ClassSNR got features that are not finite")
        if len(counts_C) == 0:
            raise ValueError("ClassSNR has seen no images")
        if float(counts_C.min()) <= self.num_directions:
            label = int(classes_C[counts_C.argmin()])
            raise ValueError(
                f"class {label} has {int(counts_C.min())} images, which {self.num_directions} directions hold "
                "entirely; give more images of each class or fewer `num_directions`"
            )
