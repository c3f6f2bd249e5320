"""The training images that are nearest to a sample, compared pixel by pixel."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

MAX_IMAGES, MAX_NUMBERS = 2048, 2**23
"""Images compared at a time, and numbers in the largest temporary array (64 MiB in double precision)."""
ROUNDING = 1e-12
"""Squared distances below this share of the squared norms count as zero; products in double precision leave 1e-15."""


class Distances:
    """l2 distances to training images, in double precision and in bounded memory.

    A training image and its horizontal mirror image count as one; the nearer of the two is taken.

    Args:
        training: (M, ...) on any device and in any precision.
        flips: Whether mirror images count. Without effect on data that have no width: the last axis of (M, C, H, W).
        device: Device to compute on; None for that of the training images.
    """

    def __init__(self, training: Tensor, *, flips: bool = True, device: torch.device | None = None) -> None:
        self.training = training
        self.flips = flips and training.ndim >= 4
        self.device = device or training.device
        # subtracted everywhere: a large offset that all pixels share would cost the products in `_block` their digits
        self.offset = float(training[:1].float().mean())

    def rows(self, images: Tensor) -> Iterator[Tensor]:
        """For each image its (M,) distances to all training images, on the CPU."""
        chunk_size = max(1, min(MAX_IMAGES, MAX_NUMBERS // self.training[0].numel()))
        chunks = torch.split(self.training, chunk_size)
        for block in torch.split(images, max(1, min(chunk_size, MAX_NUMBERS // len(self.training)))):
            yield from torch.cat([self._block(block, chunk).cpu() for chunk in chunks], 1)

    def pair(self, image: Tensor, index: int) -> tuple[float, bool]:
        """Distance of an image to one training image, exact for copies too, and whether to its mirror image."""
        other = self._flat(self.training[index : index + 1])
        by_view = [float((view - other).norm()) for view in self._views(image[None])]
        return min(by_view), by_view[-1] < by_view[0]

    def _block(self, images: Tensor, chunk: Tensor) -> Tensor:
        views, others = self._views(images), self._flat(chunk)
        scale = views[0].square().sum(1)[:, None] + others.square().sum(1)
        squared = torch.stack([scale - 2 * view @ others.T for view in views]).amin(0)
        return squared.masked_fill_(squared <= ROUNDING * scale, 0.0).sqrt_()

    def _views(self, images: Tensor) -> list[Tensor]:
        return [self._flat(view) for view in ((images, images.flip(-1)) if self.flips else (images,))]

    def _flat(self, images: Tensor) -> Tensor:
        return images.to(self.device).flatten(1).double() - self.offset


class NearestImages(NamedTuple):
    """The nearest and the second nearest training image of each of N samples, (N, 2) each; distances in data units."""

    indices: Tensor
    distances: Tensor
    is_flipped: Tensor


def nearest_training_images(samples: Tensor, distances: Distances) -> NearestImages:
    """Search all training images for the two that are nearest to each sample (N, ...), in their shape and units.

    Raises:
        ValueError: If the shapes differ, or there are fewer than two training images.
    """
    shape, training_shape = tuple(samples.shape), tuple(distances.training.shape)
    if shape[1:] != training_shape[1:] or training_shape[0] < 2:
        raise ValueError(f"need samples and at least two training images of one shape, got {shape}, {training_shape}")
    pairs = []
    for sample, row in zip(samples, distances.rows(samples), strict=True):
        candidates = row.topk(2, largest=False).indices.tolist()
        pairs.append(sorted((*distances.pair(sample, index), index) for index in candidates))
    columns = torch.tensor(pairs, dtype=torch.float64)
    return NearestImages(columns[..., 2].long(), columns[..., 0], columns[..., 1].bool())
