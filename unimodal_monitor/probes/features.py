"""Features: all features of the fit images, for probes to which no sums suffice."""

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat


class Features(Metric):
    """Keeps the features of all levels of one layer, in the precision they come in, and the labels."""

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
