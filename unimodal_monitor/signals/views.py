"""Another view of an image: an augmentation that is a pure function of (seed, image)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

STREAM = 1
"""Keeps the augmentation's random numbers apart from those of the noise with the same seed and image."""
SHIFT = 1 / 8
"""Largest shift of the crop, of the height and of the width: four pixels of 32."""
JITTER = 0.2
"""Largest change of brightness, in standard deviations of the image, and of contrast, as a factor less one."""


def another_view(images: Tensor, *, seed: int, indices: Sequence[int]) -> Tensor:
    """An augmentation of each image: random crop, horizontal flip, brightness and contrast.

    Nothing is clamped: brightness moves an image by at most a fifth of its own standard deviation, contrast
    stretches it around its own mean by at most a fifth, so that a view can leave [-1, 1] by little.

    Args:
        images: (N, C, H, W) in model units. Others, such as vectors, have no known symmetry and come back
            unchanged: their views differ by noise alone.
        seed: of all views of a monitor.
        indices: (N,) numbers of the images.

    Returns:
        as `images`, a pure function of each image, its number and `seed`.
    """
    if images.ndim != 4:
        return images
    down, right, flip, brightness, contrast = _uniform(seed, indices).unbind(1)
    height, width = images.shape[2:]
    rows, columns = _crop(height, down), _crop(width, right)
    columns = torch.where((flip < 0.5).unsqueeze(1), columns.flip(1), columns)
    where = (
        torch.arange(len(images)).view(-1, 1, 1, 1),
        torch.arange(images.shape[1]).view(1, -1, 1, 1),
        rows[:, None, :, None],
        columns[:, None, None, :],
    )
    padding = (int(width * SHIFT),) * 2 + (int(height * SHIFT),) * 2
    cropped = F.pad(images, padding, mode="reflect")[tuple(index.to(images.device) for index in where)]
    mean = images.mean((1, 2, 3), keepdim=True)
    offset = _jitter(brightness, images) * images.flatten(1).std(1, correction=0).view(-1, 1, 1, 1)
    return mean + (1 + _jitter(contrast, images)) * (cropped - mean) + offset


def _crop(size: int, uniform_N: Tensor) -> Tensor:
    """(N, size) positions of a crop within an axis that was padded on both sides."""
    start_N = (uniform_N * (2 * int(size * SHIFT) + 1)).long()
    return start_N.unsqueeze(1) + torch.arange(size)


def _jitter(uniform_N: Tensor, images: Tensor) -> Tensor:
    return (JITTER * (2 * uniform_N - 1)).to(images).view(-1, 1, 1, 1)


def _uniform(seed: int, indices: Sequence[int]) -> Tensor:
    """(N, 5) uniform random numbers of each image, on the CPU."""
    numbers = [
        np.random.Generator(np.random.Philox(key=[seed, int(index)], counter=[0, 0, STREAM, 0])).random(5)
        for index in indices
    ]
    return torch.from_numpy(np.array(numbers).reshape(-1, 5))
