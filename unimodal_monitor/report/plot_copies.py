"""Figure: the samples of an audit that are closest to training images, beside those images."""

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from unimodal_monitor.copies.audit import Audit, Pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, COPY = "#1f2933", "#9aa5b1", "#b91c1c"
KNOWN_RANGES = ((0.0, 1.0), (-1.0, 1.0))


def plot_copies(audit: Audit, samples: Tensor, training: Tensor, *, num_pairs: int = 8) -> "Figure":
    """The closest pairs: the sample above, its training image below (mirrored if that is the match), and their ratio.

    Args:
        audit: of these samples.
        samples: (N, C, H, W) with one or three channels, usually `audit.samples`; decoded ones, for latents.
        training: (M, C, H, W) in the same units. Training images from -1 to 1 or from 0 to 1 are shown as they are,
            others from their lowest to their highest pixel.
        num_pairs: columns, at most as many as the audit names.

    Raises:
        ValueError: if these are no images, there is no pair to show, or the audit is of other images.
    """
    from matplotlib.figure import Figure

    _check_images(samples, training)
    pairs = audit.pairs[: max(0, num_pairs)]
    if not pairs:
        raise ValueError(f"num_pairs is {num_pairs} of the audit's {len(audit.pairs)}; there is nothing to show")
    if max(p.sample for p in pairs) >= len(samples) or max(p.training for p in pairs) >= len(training):
        raise ValueError(
            f"the audit names images beyond the {len(samples)} samples and {len(training)} training images; give those"
            f" that it was made of"
        )
    matches = [training[pair.training].flip(-1) if pair.is_flipped else training[pair.training] for pair in pairs]
    low, high = _range(training)
    figure = Figure(figsize=(max(6.0, 1.15 * len(pairs) + 0.8), 3.5), layout="constrained")
    grid = figure.subplots(2, len(pairs), squeeze=False)
    for upper, lower, pair, match in zip(*grid, pairs, matches, strict=True):
        _show(upper, samples[pair.sample], low, high)
        _show(lower, match, low, high)
        _caption(upper, lower, pair)
    grid[0, 0].set_ylabel("sample", fontsize=9, color=INK)
    grid[1, 0].set_ylabel("nearest\ntraining image", fontsize=9, color=INK)
    figure.suptitle(
        f"{audit.sentence()}\nclosest first; below 1/3 is a copy", fontsize=10, color=INK, x=0.02, ha="left"
    )
    return figure


def _check_images(samples: Tensor, training: Tensor) -> None:
    for name, images in {"samples": samples, "training": training}.items():
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"{name} are {tuple(images.shape)}; images (N, C, H, W) with C of 1 or 3 can be shown")


def _range(images: Tensor) -> tuple[float, float]:
    """Lowest and highest pixel value of the display."""
    low, high = (float(limit) for limit in images.aminmax())
    fitting = [(a, b) for a, b in KNOWN_RANGES if a - 1e-3 <= low and high <= b + 1e-3]
    return fitting[0] if fitting else (low, high)


def _show(axes: "Axes", image: Tensor, low: float, high: float) -> None:
    shown = (image.detach().float().cpu().numpy() - low) / max(high - low, 1e-12)
    rgb = np.broadcast_to(np.clip(shown, 0, 1), (3, *shown.shape[1:]))
    axes.imshow(rgb.transpose(1, 2, 0))


def _caption(upper: "Axes", lower: "Axes", pair: Pair) -> None:
    colour = COPY if pair.is_copy else MUTED
    for axes in (upper, lower):
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=1.6)
    upper.set_title(f"{pair.ratio:.2f}", fontsize=9, color=colour if pair.is_copy else INK)
    lower.set_xlabel(f"no. {pair.training}" + ("\nmirrored" if pair.is_flipped else ""), fontsize=8, color=INK)
