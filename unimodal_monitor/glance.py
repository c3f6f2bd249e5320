"""Glance: a quick look between full checks, which says "nothing has changed" or leaves it to a full check."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from unimodal_monitor.alarm import AlarmState
from unimodal_monitor.curve import Curve, Outcomes
from unimodal_monitor.data import ProbeSet
from unimodal_monitor.datasets import balanced_rows
from unimodal_monitor.forwards import Forwards
from unimodal_monitor.images import ImageSet
from unimodal_monitor.measure import Portion, fit_probes, score_images
from unimodal_monitor.probes.base import Probe
from unimodal_monitor.ranks import Ranks
from unimodal_monitor.shape import low_end

PORTION = 4
"""A quarter of the images is what a glance may use."""

FEWEST_TO_FIT = 1000
"""Under so many images the probe of a glance would show less of a rise than that of a check."""

LOOKS = (4, 2, 1)
"""After a quarter, a half and all of them it may be decided."""

ERROR = 0.05
"""Chance that a glance says "nothing has changed" where a full check would find that something has."""


@dataclass(frozen=True)
class Glance:
    """What a quick look has found: a full check would leave the alarm as it is.

    Args:
        step: of the optimizer, as the training counts.
        state: of the alarm, still.
        sentence: what is surely as it was.
        sigmas: levels that were looked at, in data units.
        num_images: held-out images that it took.
        num_forwards: inputs that went through the network.
        seconds: that it took.
        overhead: see `Check`.
    """

    step: int
    state: AlarmState
    sentence: str
    sigmas: tuple[float, ...]
    num_images: int
    num_forwards: int
    seconds: float
    overhead: float | None = None

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Glance":
        """Inverse of `to_dict`."""
        return cls(**{**record, "sigmas": tuple(record["sigmas"]), "state": AlarmState(record["state"])})

    def to_dict(self) -> dict[str, Any]:
        """Primitives only."""
        return {**asdict(self), "state": self.state.value}


def glance_portion(probe_set: ProbeSet, *, seed: int) -> Portion:
    """The images that glances use, in an order of which every beginning is balanced over the classes."""

    def some(images: ImageSet, fewest: int) -> torch.Tensor:
        num = len(images) if images.labels is None else min(len(images), max(fewest, len(images) // PORTION))
        return torch.from_numpy(balanced_rows(images.labels, len(images), num, seed=seed))

    return Portion(fit=some(probe_set.fit, FEWEST_TO_FIT), heldout=some(probe_set.heldout, 1))


def glance_levels(curve: Curve) -> list[int]:
    """Indices of the levels that decide: the low-noise end, and the highest interior level with its neighbours."""
    pooled = low_end(curve)
    peak = pooled + int(np.argmax(curve.score.mean[pooled:-1]))
    return sorted({*range(pooled), *range(max(peak - 1, pooled), peak + 2)})


def take_glance(
    forwards: Forwards,
    probe_set: ProbeSet,
    probe: Probe,
    *,
    portion: Portion,
    ranks: Ranks,
    decide: Callable[[Outcomes], str | None],
) -> tuple[str, Outcomes] | None:
    """Score more and more of the portion's held-out images, until they tell that nothing has changed.

    Args:
        forwards: at the levels that decide, with a hook on the judged layer alone.
        probe_set: with labels.
        probe: fitted on the portion's fit images.
        portion: images to use.
        ranks: that share them.
        decide: says what is surely as it was, or None; it is asked `len(LOOKS)` times at most.

    Returns:
        what it said and the outcomes that it saw; None if it never said so.
    """
    (layer,) = forwards.captured.layers
    fitted = fit_probes(forwards, probe_set, probe, parts=[portion.fit], ranks=ranks)
    outcomes: Outcomes | None = None
    ends = [0, *(end for divisor in LOOKS if (end := len(portion.heldout) // divisor) >= ranks.size)]
    for start, end in pairwise(ends):
        rows = portion.heldout[start:end]
        (new,) = score_images(forwards, probe_set.heldout, probe, fitted, rows=rows, ranks=ranks)
        outcomes = new[layer] if outcomes is None else outcomes.joined(new[layer])
        sentence = decide(outcomes)
        if sentence is not None:
            return sentence, outcomes
    return None
