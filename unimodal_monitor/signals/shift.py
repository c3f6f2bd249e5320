"""Shift: held-out images from another distribution than the members, which produce a gap without memorization."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import ttest_ind_from_stats  # ttest_ind with a floor under the deviation of constant images
from torch import Tensor

WORDS = {
    "mean": ("brighter", "darker"),
    "std": ("richer in contrast", "poorer in contrast"),
    "sharpness": ("sharper", "more blurred"),
    "top less bottom": ("brighter at the top", "darker at the top"),
    "log fine noise": ("noisier", "smoother"),
    "log colour noise": ("noisier in colour", "smoother in colour"),
    "log number of values": ("more finely quantized", "more coarsely quantized"),
}
NUM_STEPS = 1024
"""Steps between an image's darkest and brightest value in which values are counted: 8-bit values stay apart, while
differences of float arithmetic or of half precision are not counted."""
SMOOTHEST = 0.05
"""Share of an image, its smoothest part, by which fine noise is judged: there the content does not hide it."""
FLOOR = 0.005
"""Added to differences before the logarithm, in model units: about one step of 8 bits if the values span -1 to 1."""
MIN_IMAGES, MAX_VALUES = 300, 2**26
"""Of a set whose values are more than so many together, fewer images are compared, but at least so many."""
CHUNK_SIZE = 2**22
"""Numbers that are handled at a time."""


@dataclass(frozen=True)
class Shift:
    """The clearest difference between held-out images and members."""

    statistic: str  # see `image_statistics`
    heldout: float  # mean over held-out images, in model units
    members: float  # mean over members
    z: float  # difference in standard errors
    effect: float  # difference in standard deviations over images

    def describe(self) -> str:
        """What differs, and what follows, in one sentence."""
        more, less = WORDS.get(self.statistic, (f"higher in the {self.statistic}", f"lower in the {self.statistic}"))
        return (
            f"held-out images are {more if self.z > 0 else less} than the members: {self.statistic} "
            f"{self.heldout:.3g} against {self.members:.3g}, {abs(self.z):.0f} standard errors; "
            "a gap between them would not mean memorization"
        )


def find_shift(
    members: Tensor, heldout: Tensor, *, significance: float = 1e-4, min_effect: float = 0.1
) -> Shift | None:
    """The clearest significant and large difference of simple image statistics, or None (Welch's t-test).

    Of a set with more than `MAX_VALUES` values a part is compared.

    Args:
        members: (N, ...) images, or vectors (N, D), in model units.
        heldout: (M, ...) images or vectors of the same shape, at least 2 of each, or a ValueError is raised.
        significance: Probability of finding a shift where there is none, over all statistics (Bonferroni).
        min_effect: Smallest difference that counts, in standard deviations over images; large sets may differ a little.
    """
    if members.shape[1:] != heldout.shape[1:] or min(len(members), len(heldout)) < 2:
        shapes = f"{tuple(members.shape)} and {tuple(heldout.shape)}"
        raise ValueError(f"members and held-out images must be of one shape, at least 2 of each, got {shapes}")
    heldout, members = _part(heldout), _part(members)
    sets = [image_statistics(images) for images in (heldout, members)]
    means = np.array([[float(values.mean()) for values in statistics.values()] for statistics in sets])
    stds = np.array([[max(float(values.std()), 1e-12) for values in statistics.values()] for statistics in sets])
    z, p_value = ttest_ind_from_stats(means[0], stds[0], len(heldout), means[1], stds[1], len(members), equal_var=False)
    effect = (means[0] - means[1]) / np.sqrt(np.square(stds).mean(0))
    is_found = (p_value * len(z) < significance) & (np.abs(effect) >= min_effect)
    if not is_found.any():
        return None
    clearest = int(np.where(is_found, np.abs(z), 0).argmax())
    return Shift(list(sets[0])[clearest], *(float(row[clearest]) for row in (*means, z, effect)))


def _part(images: Tensor) -> Tensor:
    """As many images, spread over the set, as have `MAX_VALUES` together: the start of a run waits for them."""
    most = max(MIN_IMAGES, MAX_VALUES // images[0].numel())
    return images if len(images) <= most else images[torch.linspace(0, len(images) - 1, most).long()]


def image_statistics(images: Tensor) -> dict[str, Tensor]:
    """(N,) statistics of each image by name.

    Vectors (N, D) have a mean and a standard deviation. Images (N, C, H, W) of more than one channel also have a tint,
    the channel's mean less the image's, and those of at least 3 pixels a side:

    - sharpness: mean absolute difference of horizontal neighbours;
    - top less bottom: mean of the upper half less that of the lower half, which a vertical flip reverses;
    - log fine noise: log of the mixed second differences in the smoothest part of the image, see `fine_noise`;
    - log colour noise: log of the mean absolute mixed second difference of the differences between neighbouring
      channels, in which natural images hardly vary;
    - log number of values: log of the number of distinct values, see `number_of_values`.

    >>> {name: value.item() for name, value in image_statistics(torch.tensor([[1.0, 2.0, 3.0]])).items()}
    {'mean': 2.0, 'std': 1.0}
    """
    size = max(1, CHUNK_SIZE // images[0].numel())
    parts = [_statistics(images[start : start + size]) for start in range(0, len(images), size)]
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}


def _statistics(images: Tensor) -> dict[str, Tensor]:
    """The statistics of as many images as fit into memory, on the images' device."""
    flat = images.flatten(1).double()
    statistics = {"mean": flat.mean(1)}
    if flat.shape[1] > 1:
        statistics["std"] = flat.std(1)
    if images.ndim != 4:
        return statistics
    pixels, (num_channels, height, width) = images.float(), images.shape[1:]
    if num_channels > 1:
        channels = pixels.flatten(2).mean(2, dtype=torch.float64)
        tints = (channels - channels.mean(1, keepdim=True)).unbind(1)
        statistics |= {f"tint of channel {number}": tint for number, tint in enumerate(tints)}
    if width > 1:
        statistics["sharpness"] = _mean(pixels.diff(dim=3).abs())
    if min(height, width) >= 3:
        half = height // 2
        statistics["top less bottom"] = _mean(pixels[:, :, :half]) - _mean(pixels[:, :, -half:])
        statistics["log fine noise"] = fine_noise(pixels)
        if num_channels > 1:
            colour_noise = _mean(_mixed_differences(pixels.diff(dim=1)))
            statistics["log colour noise"] = (colour_noise + FLOOR).log()
        statistics["log number of values"] = number_of_values(pixels)
    return statistics


def fine_noise(images: Tensor) -> Tensor:
    """(N,) log of a low quantile of the absolute mixed second differences of (N, C, H, W) images.

    The difference a - b - c + d of four neighbours is 0 on edges along an axis and on slopes. It is averaged over
    channels and 2 x 2 positions; the quantile is that of the image's smoothest part.

    Source: Immerkaer 1996, Fast noise variance estimation, whose mask is made of such differences.
    """
    rough = F.avg_pool2d(_mixed_differences(images).mean(1, keepdim=True), 2, stride=1).flatten(1)
    number = max(1, int(SMOOTHEST * rough.shape[1]))
    return (rough.kthvalue(number, dim=1).values.double() + FLOOR).log()


def number_of_values(images: Tensor) -> Tensor:
    """(N,) log of the number of distinct values of each image: at most log 32 for 5 bits, 0 for a constant image.

    Values within one of NUM_STEPS equal steps from the image's lowest to its highest value are one.
    """
    flat = images.flatten(1)
    low, high = flat.aminmax(dim=1, keepdim=True)
    steps = ((flat - low) / (high - low) * (NUM_STEPS - 1)).nan_to_num(0, 0, 0)  # of constant images: 0 / 0
    occurs = torch.zeros(len(flat), NUM_STEPS, dtype=torch.bool, device=flat.device)
    return occurs.scatter_(1, steps.round().long(), True).sum(1).double().log()


def _mixed_differences(images: Tensor) -> Tensor:
    """(N, C, H - 1, W - 1) absolute differences along both axes."""
    return images.diff(dim=2).diff(dim=3).abs()


def _mean(values: Tensor) -> Tensor:
    """(N,) means in double precision."""
    return values.flatten(1).mean(1, dtype=torch.float64)
