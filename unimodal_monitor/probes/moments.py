"""Moments: sums over images, all that a least-squares probe needs to know of them."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import Metric


class Moments(Metric):
    """Sums of features and one-hot labels over images, for all levels of one layer.

    The sums are sufficient for every ridge strength, independent of batch size and exact over any shards
    (`dist_reduce_fx="sum"`). They are kept in float64: products of float32 features are exact there.

    Args:
        num_levels: K.
        width: D, feature width of the layer.
        num_classes: C.
    """

    full_state_update = False
    count: Tensor
    sum_x_KD: Tensor
    sum_xx_KDD: Tensor
    sum_xy_KDC: Tensor
    sum_y_C: Tensor

    def __init__(self, num_levels: int, width: int, num_classes: int) -> None:
        super().__init__(sync_on_compute=False)
        self.num_classes = num_classes
        shapes = {
            "count": (),
            "sum_x_KD": (num_levels, width),
            "sum_xx_KDD": (num_levels, width, width),
            "sum_xy_KDC": (num_levels, width, num_classes),
            "sum_y_C": (num_classes,),
        }
        for name, shape in shapes.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, features_KND: Tensor, labels_N: Tensor) -> None:
        """Add images.

        Args:
            features_KND: (K, N, D) float.
            labels_N: (N,) integers below `num_classes`.
        """
        x = features_KND.double()
        y_NC = one_hot(labels_N, self.num_classes).double()
        self.count += labels_N.numel()
        self.sum_x_KD += x.sum(1)
        self.sum_xx_KDD.baddbmm_(x.mT, x)
        self.sum_xy_KDC += (y_NC.T @ x).mT
        self.sum_y_C += y_NC.sum(0)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (K, D), centred scatter (K, D, D) and centred cross products with the labels (K, D, C)."""
        mean_KD = self.sum_x_KD / self.count
        scatter_KDD = self.sum_xx_KDD - self.count * mean_KD.unsqueeze(2) * mean_KD.unsqueeze(1)
        cross_KDC = self.sum_xy_KDC - mean_KD.unsqueeze(2) * self.sum_y_C
        return mean_KD, scatter_KDD, cross_KDC
