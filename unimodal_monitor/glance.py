"""Glance: a quick look between full checks, which says "nothing has changed" or leaves it to a full check."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from unimodal_monitor.alarm.alarm import Alarm, AlarmState
from unimodal_monitor.alarm.rules.base import Look
from unimodal_monitor.check import Check
from unimodal_monitor.data.datasets import balanced_rows
from unimodal_monitor.data.image_set import ImageSet
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.forward.distributed import Ranks
from unimodal_monitor.forwards import Forwards, Noising
from unimodal_monitor.measure import Portion, fit_probes, score_images
from unimodal_monitor.probes.base import Probe
from unimodal_monitor.stats.estimate import Curve
from unimodal_monitor.stats.max_t import low_end

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
    seconds: float = 0.0
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


class Glances:
    """The glances of a run: when one may take the place of a check, and what it finds.

    Args:
        probe_set: with labels.
        probe: that a glance fits, on its own portion of the images.
        layer: that is judged.
        noising: of a check.
        full_every: at least one of so many looks is a check.
        portion: images to use.
    """

    def __init__(
        self, probe_set: ProbeSet, probe: Probe, *, layer: str, noising: Noising, full_every: int, portion: Portion
    ) -> None:
        self.probe_set = probe_set
        self.probe = probe
        self.layer = layer
        self.noising = noising
        self.full_every = full_every
        self.portion = portion
        self.taken: list[Glance] = []

    def may_follow(self, check: Check) -> bool:
        """Whether the next look may be a glance, after this check and the glances since."""
        return sum(glance.step > check.step for glance in self.taken) < self.full_every - 1

    def noising_after(self, check: Check) -> Noising:
        """Only the levels that decide."""
        return self.noising.at(glance_levels(check.curve))

    def num_forwards(self, noising: Noising, *, num_heldout: int | None = None) -> int:
        """Inputs of a glance that takes so many of the held-out images; None for all that it may."""
        num_heldout = len(self.portion.heldout) if num_heldout is None else num_heldout
        return (len(self.portion.fit) + num_heldout) * len(noising.sigmas) * noising.num_draws

    def take(self, forwards: Forwards, alarm: Alarm, step: int, *, ranks: Ranks) -> Glance | None:
        """Score more and more of the held-out images, until they tell that a check would leave the alarm as it is.

        Args:
            forwards: at the levels that decide, with a hook on the judged layer alone.
            alarm: is asked `len(LOOKS)` times at most.
            step: of the training.
            ranks: that share the images.

        Returns:
            the glance, its time left open; None if a check is needed.
        """
        fitted = fit_probes(forwards, self.probe_set, self.probe, parts=[self.portion.fit], ranks=ranks)
        heldout, outcomes = self.probe_set.heldout, None
        ends = [0, *(end for divisor in LOOKS if (end := len(self.portion.heldout) // divisor) >= ranks.size)]
        for start, end in pairwise(ends):
            rows = self.portion.heldout[start:end]
            (scored,) = score_images(forwards, heldout, self.probe, fitted, rows=rows, ranks=ranks)
            new = scored[self.layer]
            outcomes = new if outcomes is None else outcomes.joined(new)
            curve = Curve.from_outcomes(self.layer, forwards.noising.sigmas, self.probe_set.std, outcomes)
            look = Look(alarm.num_checks + 1, step, curve, outcomes.score_KM)
            sentence = alarm.forecast(look, fraction=end / len(heldout), error=ERROR / len(LOOKS))
            if sentence is not None:
                return Glance(
                    step=step,
                    state=alarm.state,
                    sentence=sentence,
                    sigmas=tuple(forwards.noising.sigmas.tolist()),
                    num_images=end,
                    num_forwards=self.num_forwards(forwards.noising, num_heldout=end),
                )
        return None
