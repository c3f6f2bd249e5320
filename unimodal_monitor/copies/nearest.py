"""The training images nearest to a sample, pixel by pixel."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_IMAGES, CHUNK_PIXELS = 2048, 2**23
"""Images compared at a time: at most so many, and with no more pixels than that (64 MiB in double precision)."""
EQUAL = 1e-12
"""Squared distances below this share of the squared norms are zero: products in double precision leave 1e-15."""


@dataclass(frozen=True, eq=False)
class NearestImages:
    """The nearest training image of each of N samples, and the second nearest.

    Args:
        indices: (N, 2) numbers of two different training images.
        distances: (N, 2) l2 over all pixels and channels, ascending.
        is_flipped: (N, 2) whether the training image's mirror image is the nearer one.
    """

    indices: Tensor
    distances: Tensor
    is_flipped: Tensor


class Distances:
    """l2 distances to training images, in double precision and in bounded memory.

    A training image and its horizontal mirror image count as one: the nearer of the two is taken.

    Args:
        training: (M, ...) on any device and in any precision.
        flips: whether to look at mirror images; only where there is a width, which is the last axis of (M, C, H, W)
            and of anything with more axes.
        chunk_size: images compared at a time, or None for what fits in some 100 MiB.
        device: to compute on, or None for that of the images.
    """

    def __init__(
        self,
        training: Tensor,
        *,
        flips: bool = True,
        chunk_size: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.training = training
        self.flips = flips
        self.chunk_size = chunk_size
        self.device = device

    @property
    def num_rows(self) -> int:
        """Images compared at a time."""
        return self.chunk_size or max(1, min(CHUNK_IMAGES, CHUNK_PIXELS // self.training[0].numel()))

    def squared(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """For chunk after chunk of B training images: (N, B) squared distances, and (N, B) whether by the mirror."""
        a = self._flat(images)
        mirrored = self._flat(images.flip(-1)) if self.flips and images.ndim >= 4 else None
        for chunk in self.training.split(self.num_rows):
            b = self._flat(chunk)
            scale = a.square().sum(1)[:, None] + b.square().sum(1)
            straight = _without_residue(scale - 2 * a @ b.T, scale)
            if mirrored is None:
                yield straight, torch.zeros_like(straight, dtype=torch.bool)
                continue
            across = _without_residue(scale - 2 * mirrored @ b.T, scale)
            yield torch.minimum(straight, across), across < straight

    def between(self, images: Tensor) -> Tensor:
        """(N, M) distances of a few images to all training images."""
        return torch.cat([squared.cpu() for squared, _ in self.squared(images)], 1).sqrt()

    def exact(self, image: Tensor, index: int, is_flipped: bool) -> float:
        """One distance by subtraction, which is right to the last digits for copies too."""
        other = self._flat(self.training[index : index + 1])
        own = self._flat((image.flip(-1) if is_flipped else image)[None])
        return float((own - other).norm())

    def _flat(self, images: Tensor) -> Tensor:
        """(N, D), less an offset that is common to all and would cost the products their digits."""
        offset = float(self.training[0].float().mean())
        return images.to(self.device or self.training.device).flatten(1).double() - offset


def nearest_training_images(
    samples: Tensor,
    training: Tensor,
    *,
    flips: bool = True,
    chunk_size: int | None = None,
    device: torch.device | None = None,
) -> NearestImages:
    """Search all training images for the two that are nearest to each sample.

    Args:
        samples: (N, ...) of the training images' shape and units.
        training: (M, ...) with M >= 2.
        flips: as in `Distances`, as are `chunk_size` and `device`. Off where left and right differ in meaning.

    Returns:
        the pairs, on the CPU; distances are recomputed by subtraction.

    Raises:
        ValueError: if the shapes differ, or there are fewer than two training images.
    """
    if samples.shape[1:] != training.shape[1:] or len(training) < 2:
        raise ValueError(
            f"samples are {tuple(samples.shape)} and training images {tuple(training.shape)};"
            f" one shape and two training images or more are needed"
        )
    distances = Distances(training, flips=flips, chunk_size=chunk_size, device=device)
    parts = [_two_nearest(block, distances) for block in samples.split(distances.num_rows)]
    indices, is_flipped = (torch.cat(part) for part in zip(*parts, strict=True))
    rows = zip(samples, indices.tolist(), is_flipped.tolist(), strict=True)
    exact = [[distances.exact(image, *match) for match in zip(*matches, strict=True)] for image, *matches in rows]
    values, order = torch.tensor(exact, dtype=torch.float64).sort(dim=1, stable=True)
    return NearestImages(indices.gather(1, order), values, is_flipped.gather(1, order))


def _two_nearest(samples: Tensor, distances: Distances) -> tuple[Tensor, Tensor]:
    """(N, 2) numbers of the training images, and whether they are mirrored."""
    found, start = [], 0
    for squared, mirrored in distances.squared(samples):
        values, places = squared.topk(min(2, squared.shape[1]), largest=False)
        found.append((values, places + start, mirrored.gather(1, places)))
        start += squared.shape[1]
    values, indices, is_flipped = (torch.cat(part, 1) for part in zip(*found, strict=True))
    best = values.topk(2, largest=False).indices
    return indices.gather(1, best).cpu(), is_flipped.gather(1, best).cpu()


def _without_residue(squared: Tensor, scale: Tensor) -> Tensor:
    """Zero what rounding alone can leave of a squared distance."""
    return squared.masked_fill_(squared <= EQUAL * scale, 0.0)
