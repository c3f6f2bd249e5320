"""Shift: held-out images from another distribution than the members, which fake a gap between the two."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from scipy.stats import t as student
from torch import Tensor

WORDS = {
    "mean": ("brighter", "darker"),
    "std": ("richer in contrast", "poorer in contrast"),
    "sharpness": ("sharper", "more blurred"),
}


@dataclass(frozen=True)
class Shift:
    """The clearest difference between held-out images and members.

    Args:
        statistic: of an image: "mean", "std", "tint of channel 0" (its mean less that of the image) and so on, or
            "sharpness", the mean absolute difference of horizontal neighbours.
        heldout: its mean over the held-out images, in model units.
        members: over the members.
        z: the difference in standard errors.
        effect: the difference in standard deviations over images.
    """

    statistic: str
    heldout: float
    members: float
    z: float
    effect: float

    def describe(self) -> str:
        """What differs, and what follows, in one sentence."""
        more, less = WORDS.get(self.statistic, (f"higher in the {self.statistic}", f"lower in the {self.statistic}"))
        return (
            f"held-out images are {more if self.z > 0 else less} than the members: {self.statistic} "
            f"{self.heldout:.3g} against {self.members:.3g}, {abs(self.z):.0f} standard errors; "
            "a gap between them would not mean memorization"
        )

    def to_dict(self) -> dict[str, Any]:
        """Primitives only."""
        return asdict(self)


def find_shift(
    members: Tensor, heldout: Tensor, *, significance: float = 1e-4, min_effect: float = 0.1
) -> Shift | None:
    """Compare simple statistics of the images, before any network sees them.

    Args:
        members: (N, ...) images, or vectors (N, D), in model units.
        heldout: (M, ...) likewise.
        significance: chance of finding a shift where there is none, over all statistics (Bonferroni).
        min_effect: smallest difference that counts, in standard deviations over images, so that large sets
            may differ a little.

    Returns:
        the clearest of the differences that are both significant and large; None if there is none.

    Raises:
        ValueError: if the shapes differ, or a set has fewer than two images.

    Source: Welch's unequal variances t-test.
    """
    if members.shape[1:] != heldout.shape[1:] or min(len(members), len(heldout)) < 2:
        raise ValueError(
            "members and held-out images must be of one shape, two or more of each, "
            f"got {tuple(members.shape)} and {tuple(heldout.shape)}"
        )
    ours, theirs = image_statistics(members), image_statistics(heldout)
    shifts = [_welch(name, ours[name], theirs[name]) for name in ours]
    found = [
        shift for shift, p_value in shifts if p_value * len(shifts) < significance and abs(shift.effect) >= min_effect
    ]
    return max(found, key=lambda shift: abs(shift.z), default=None)


def image_statistics(images: Tensor) -> dict[str, Tensor]:
    """A few figures of each image by name, (N,) each; vectors (N, D) have no channels and no neighbours."""
    flat = images.flatten(1).double()
    figures = {"mean": flat.mean(1)}
    if flat.shape[1] > 1:
        figures["std"] = flat.std(1)
    if images.ndim == 4:
        channels = images.flatten(2).mean(2, dtype=torch.float64)
        if images.shape[1] > 1:
            tints = (channels - channels.mean(1, keepdim=True)).unbind(1)
            figures |= {f"tint of channel {number}": tint for number, tint in enumerate(tints)}
        if images.shape[3] > 1:
            figures["sharpness"] = images.diff(dim=3).abs().flatten(1).mean(1, dtype=torch.float64)
    return {name: figure.cpu() for name, figure in figures.items()}


def _welch(name: str, members_N: Tensor, heldout_N: Tensor) -> tuple[Shift, float]:
    """The difference and its two-sided p-value."""
    parts = [(float(values.var()), len(values)) for values in (members_N, heldout_N)]
    squares = [max(variance, 1e-24) / num for variance, num in parts]
    difference = float(heldout_N.mean() - members_N.mean())
    z = difference / sum(squares) ** 0.5
    freedom = sum(squares) ** 2 / sum(s**2 / (num - 1) for s, (_, num) in zip(squares, parts, strict=True))
    pooled = max(sum(variance for variance, _ in parts) / 2, 1e-24) ** 0.5
    shift = Shift(name, float(heldout_N.mean()), float(members_N.mean()), z, difference / pooled)
    return shift, 2 * float(student.sf(abs(z), freedom))
