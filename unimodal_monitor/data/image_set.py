"""ImageSet: images of one role, checked."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one role.

    Args:
        images: (N, ...) in model space, as the training loop would noise them.
        labels: (N,) integer classes from 0, or None where there are none.
        indices: (N,) rows of the dataset they came from, or None.

    Raises:
        ValueError: if a pixel is not finite, or labels are no integers from 0, one for each image.
    """

    images: Tensor
    labels: Tensor | None = None
    indices: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.ndim < 2 or not self.images.is_floating_point():
            raise ValueError(
                f"images must be floats of shape (N, ...) in model space, got {self.images.dtype} "
                f"{tuple(self.images.shape)}; give a `transform` that makes them so"
            )
        finite = self.images.flatten(1).isfinite().all(1)
        if not finite.all():
            raise ValueError(
                f"{int((~finite).sum())} images hold NaN or infinite pixels, the first is number "
                f"{int((~finite).nonzero()[0])}"
            )
        if self.labels is not None:
            check_labels(self.labels, len(self.images))

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Tensor) -> "ImageSet":
        """The images of these rows, with their labels and indices."""

        def pick(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[rows]

        return ImageSet(self.images[rows], pick(self.labels), pick(self.indices))


def check_labels(labels: Tensor, num_images: int) -> None:
    """Raise a ValueError unless the labels are (num_images,) integers from 0."""
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    if tuple(labels.shape) != (num_images,):
        raise ValueError(f"labels must have shape ({num_images},), one for each image, got {tuple(labels.shape)}")
    if num_images and int(labels.min()) < 0:
        raise ValueError(f"labels must count from 0, got {int(labels.min())}")
