"""Figure: the samples of an audit that are closest to training images, beside those images."""

from typing import Any, TypeGuard

import numpy as np
from torch import Tensor

from unimodal_monitor.copies.audit import Audit
from unimodal_monitor.report.style import INK, MUTED, RED, Figure, new_figure

KNOWN_RANGES = ((0.0, 1.0), (-1.0, 1.0))


def plot_copies(audit: Audit, samples: Tensor, training: Tensor, *, num_pairs: int = 8) -> Figure:
    """The closest pairs: the sample above, its training image below (mirrored if that is the match), and their ratio.

    >>> import torch
    >>> from unimodal_monitor.copies.audit import audit_samples
    >>> training = torch.rand(20, 3, 8, 8)
    >>> figure = plot_copies(audit_samples(training[:5], training), training[:5], training, num_pairs=4)
    >>> figure.axes[0].get_title()
    '0.00'

    Args:
        audit: Audit of these samples.
        samples: (N, C, H, W) with one or three channels, usually `audit.samples`; decoded ones, for latents.
        training: (M, C, H, W) in the same units. Training images from -1 to 1 or from 0 to 1 are shown as they are,
            others from their lowest to their highest pixel.
        num_pairs: Number of columns, at most as many as the audit names.

    Raises:
        ValueError: if these are no images, there is no pair to show, or the audit is of other images.
    """
    pairs = audit.pairs[: max(0, num_pairs)]
    if not (can_be_shown(samples) and can_be_shown(training)):
        shapes = f"{tuple(samples.shape)} and {tuple(training.shape)}"
        raise ValueError(f"need samples and training images (N, C, H, W) with C of 1 or 3, got {shapes}")
    if not all(pair.sample < len(samples) and pair.training < len(training) for pair in pairs) or not pairs:
        found = f"{len(pairs)} pairs, {len(samples)} samples and {len(training)} training images"
        raise ValueError(f"need pairs and all images that the audit was made of, got {found}")
    low, high = (float(limit) for limit in training.aminmax())
    low, high = next(((a, b) for a, b in KNOWN_RANGES if a - 1e-3 <= low and high <= b + 1e-3), (low, high))
    title = f"{audit.sentence()}\nclosest first; below 1/3 is a copy"
    figure = new_figure(max(6.0, 1.15 * len(pairs) + 0.8), 3.5, title=title)
    grid = figure.subplots(2, len(pairs), squeeze=False)
    for upper, lower, pair in zip(*grid, pairs, strict=True):
        match, colour = training[pair.training], RED if pair.is_copy else MUTED
        _show(upper, samples[pair.sample], low, high, colour)
        _show(lower, match.flip(-1) if pair.is_flipped else match, low, high, colour)
        upper.set_title(f"{pair.ratio:.2f}", fontsize=9, color=RED if pair.is_copy else INK)
        lower.set_xlabel(f"no. {pair.training}" + "\nmirrored" * pair.is_flipped, fontsize=8, color=INK)
    grid[0, 0].set_ylabel("sample", fontsize=9, color=INK)
    grid[1, 0].set_ylabel("nearest\ntraining image", fontsize=9, color=INK)
    return figure


def can_be_shown(images: Tensor | None) -> TypeGuard[Tensor]:
    """Whether these are images (N, C, H, W) of one or three channels."""
    return images is not None and images.ndim == 4 and images.shape[1] in (1, 3)


def _show(axes: Any, image: Tensor, low: float, high: float, colour: str) -> None:
    pixels = np.clip((image.detach().float().cpu().numpy() - low) / max(high - low, 1e-12), 0, 1)
    axes.imshow(np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=colour, linewidth=1.6)
