"""Moments: sums over images, all that a least-squares probe needs."""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import Metric


class Moments(Metric):
    """Sums of features and one-hot labels over images, for all levels of one layer.

    They do not depend on the batch size and add up over ranks. In float64 products of float32 features are exact,
    and means a thousand times the spread cost no digit that matters.
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
        add, zeros = partial(self.add_state, dist_reduce_fx="sum"), partial(torch.zeros, dtype=torch.float64)
        add("count", zeros(()))
        add("sum_x_KD", zeros(num_levels, width))
        add("sum_xx_KDD", zeros(num_levels, width, width))
        add("sum_xy_KDC", zeros(num_levels, width, num_classes))
        add("sum_y_C", zeros(num_classes))
        self.set_dtype(torch.float64)

    def update(self, features_KND: Tensor, labels_N: Tensor) -> None:
        """Add (K, N, D) features of images of (N,) integer classes below `num_classes`."""
        with torch.autocast(features_KND.device.type, enabled=False):
            x_KND = features_KND.double()
            y_NC = one_hot(labels_N, self.num_classes).double()
            self.count += labels_N.numel()
            self.sum_x_KD += x_KND.sum(1)
            self.sum_xx_KDD.baddbmm_(x_KND.mT, x_KND)
            self.sum_xy_KDC += (y_NC.T @ x_KND).mT
            self.sum_y_C += y_NC.sum(0)

    def centred(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (K, D), centred scatter (K, D, D) and centred cross products with the labels (K, D, C)."""
        mean_KD = self.sum_x_KD / self.count
        scatter_KDD = self.sum_xx_KDD - self.count * mean_KD.unsqueeze(2) * mean_KD.unsqueeze(1)
        cross_KDC = self.sum_xy_KDC - mean_KD.unsqueeze(2) * self.sum_y_C
        return mean_KD, scatter_KDD, cross_KDC

    compute = centred
