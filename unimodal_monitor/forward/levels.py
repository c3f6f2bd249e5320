"""Levels: which noise levels are looked at, in data units."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.forward.noise import paper_sigmas

MIN_LEVELS = 4
"""A low-noise end, an interior of two, and a level beyond it."""


def wanted_levels(std: float, sigmas: Tensor | Sequence[float] | None) -> Tensor:
    """(K,) the levels asked for; None for the paper's, scaled by the data's standard deviation.

    Raises:
        ValueError: if they are not positive and ascending.
    """
    wanted = paper_sigmas(std) if sigmas is None else torch.as_tensor(sigmas, dtype=torch.float64)
    if wanted.ndim != 1 or not (wanted > 0).all() or not wanted.isfinite().all() or not (wanted.diff() > 0).all():
        raise ValueError(f"sigmas must be positive and ascending, got {wanted.tolist()}")
    return wanted


def reachable_levels(denoiser: Denoiser, wanted: Tensor) -> Tensor:
    """The levels as the network's schedule can express them; those out of its reach are dropped.

    Raises:
        ValueError: if too few are left.
    """
    levels = denoiser.snap(wanted)
    if len(levels) < MIN_LEVELS:
        raise ValueError(
            f"the schedule can express {len(levels)} of the {len(wanted)} levels {wanted.tolist()}: "
            f"{levels.tolist()}; a curve needs {MIN_LEVELS}, so give other `sigmas`"
        )
    return levels
