"""ImageSet: checked images of one role."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one role; a ValueError if a pixel is not finite, or the labels are no classes."""

    images: Tensor  # (N, ...) floats in model space, as the training loop would noise them
    labels: Tensor | None = None  # (N,) integer classes from 0
    indices: Tensor | None = None  # (N,) rows of the dataset that the images came from
    varies: bool = False  # whether the dataset gave another image when an item was read again: random augmentation

    def __post_init__(self) -> None:
        if self.images.ndim < 2 or not self.images.is_floating_point():
            raise ValueError(
                f"images must be floats of shape (N, ...) in model space, got {self.images.dtype} "
                f"{tuple(self.images.shape)}; give a `transform` that makes them so"
            )
        if self.images.dtype == torch.float64:  # as NumPy gives them; networks compute in float32
            object.__setattr__(self, "images", self.images.float())
        broken = (~self.images.flatten(1).isfinite().all(1)).nonzero()[:, 0]
        if len(broken):
            raise ValueError(f"{len(broken)} images have NaN or infinite pixels, the first is number {int(broken[0])}")
        if self.labels is not None:
            check_labels(self.labels, len(self.images))

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def digests(self) -> list[bytes]:
        """A hash of each image; of its bytes, since NumPy has no bfloat16."""
        pixels = self.images.detach().cpu().contiguous().view(torch.uint8)
        return [blake2b(image.numpy(), digest_size=16).digest() for image in pixels]

    def take(self, rows: Tensor) -> "ImageSet":
        """The images of these rows, with their labels and indices."""
        labels, indices = (None if values is None else values[rows] for values in (self.labels, self.indices))
        return ImageSet(self.images[rows], labels, indices, self.varies)


def check_labels(labels: Tensor, num_images: int) -> None:
    """Raise a ValueError unless the labels are (num_images,) integers from 0."""
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    if tuple(labels.shape) != (num_images,):
        raise ValueError(f"labels must have shape ({num_images},), one for each image, got {tuple(labels.shape)}")
    if num_images and int(labels.min()) < 0:
        raise ValueError(f"labels must count from 0, got {int(labels.min())}")
