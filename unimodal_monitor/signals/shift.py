"""Shift: held-out images from another distribution than the members, which produce a gap without memorization."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import ttest_ind_from_stats  # ttest_ind with a floor under the deviation of constant images
from torch import Tensor

WORDS = {
    "mean": ("brighter", "darker"),
    "std": ("richer in contrast", "poorer in contrast"),
    "sharpness": ("sharper", "more blurred"),
}


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

    Args:
        members: (N, ...) images, or vectors (N, D), in model units.
        heldout: (M, ...) images or vectors of the same shape, at least 2 of each, or a ValueError is raised.
        significance: Probability of finding a shift where there is none, over all statistics (Bonferroni).
        min_effect: Smallest difference that counts, in standard deviations over images; large sets may differ a little.
    """
    if members.shape[1:] != heldout.shape[1:] or min(len(members), len(heldout)) < 2:
        shapes = f"{tuple(members.shape)} and {tuple(heldout.shape)}"
        raise ValueError(f"members and held-out images must be of one shape, at least 2 of each, got {shapes}")
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


def image_statistics(images: Tensor) -> dict[str, Tensor]:
    """(N,) statistics of each image by name.

    Images (N, C, H, W) have a tint, the channel's mean less the image's, and a sharpness, the mean absolute difference
    of horizontal neighbours.
    """
    flat = images.flatten(1).double()
    statistics = {"mean": flat.mean(1)}
    if flat.shape[1] > 1:
        statistics["std"] = flat.std(1)
    if images.ndim == 4 and images.shape[1] > 1:
        channels = images.flatten(2).mean(2, dtype=torch.float64)
        tints = (channels - channels.mean(1, keepdim=True)).unbind(1)
        statistics |= {f"tint of channel {number}": tint for number, tint in enumerate(tints)}
    if images.ndim == 4 and images.shape[3] > 1:
        statistics["sharpness"] = images.diff(dim=3).abs().flatten(1).mean(1, dtype=torch.float64)
    return {name: values.cpu() for name, values in statistics.items()}
