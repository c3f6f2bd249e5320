"""Another view of an image: an augmentation that is a pure function of (seed, image)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

STREAM = 1  # keeps the augmentation's random numbers apart from those of the noise with the same seed and image
SHIFT = 1 / 8  # largest shift of the crop, of the height and of the width: four pixels of 32
JITTER = 0.2  # largest change of brightness, in standard deviations of the image, and of contrast, as a factor less one


def another_view(images: Tensor, *, seed: int, indices: Sequence[int]) -> Tensor:
    """An augmentation of each image: random crop, horizontal flip, brightness and contrast.

    Nothing is clamped, so that a view can leave [-1, 1] by little.

    Args:
        images: (N, C, H, W) in model units. Others, such as vectors, have no known symmetry and come back unchanged:
            their views differ by noise alone.
        seed: Seed of all views of a run.
        indices: (N,) numbers of the images; a view depends on its image, number and seed alone.
    """
    if images.ndim != 4 or len(images) == 0:
        return images
    streams = [np.random.Philox(key=[seed, int(index)], counter=[0, 0, STREAM, 0]) for index in indices]
    uniform = np.array([np.random.Generator(stream).random(5) for stream in streams]).reshape(-1, 5)
    down, right, flip, brightness, contrast = torch.from_numpy(uniform).unbind(1)
    pads = [int(size * SHIFT) for size in images.shape[2:]]
    rows, columns = (
        (start_N * (2 * pad + 1)).long().unsqueeze(1) + torch.arange(size)
        for start_N, pad, size in zip((down, right), pads, images.shape[2:], strict=True)
    )
    columns = torch.where((flip < 0.5).unsqueeze(1), columns.flip(1), columns)
    number, channel = torch.arange(len(images)).view(-1, 1, 1, 1), torch.arange(images.shape[1]).view(-1, 1, 1)
    where = (number, channel, rows[:, None, :, None], columns[:, None, None, :])
    padded = F.pad(images, (pads[1], pads[1], pads[0], pads[0]), mode="reflect")
    cropped = padded[tuple(index.to(images.device) for index in where)]
    stretch, lift = ((JITTER * (2 * each - 1)).to(images).view(-1, 1, 1, 1) for each in (contrast, brightness))
    mean, std = images.mean((1, 2, 3), keepdim=True), images.std((1, 2, 3), correction=0, keepdim=True)
    return mean + (1 + stretch) * (cropped - mean) + lift * std
