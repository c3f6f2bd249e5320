"""Monitor: the core for any training loop. `check(step)` looks at the network and says what it found."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unimodal_monitor.alarm import Alarm
from unimodal_monitor.check import Check
from unimodal_monitor.curve import Curve
from unimodal_monitor.data import ProbeSet
from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.denoisers.network import weights_used
from unimodal_monitor.features import capture, check_finite, find_layers
from unimodal_monitor.isolation import leaving_no_trace
from unimodal_monitor.measure import Protocol, all_levels, measure
from unimodal_monitor.noise import paper_sigmas
from unimodal_monitor.probes.base import Probe
from unimodal_monitor.probes.ridge import RidgeProbe
from unimodal_monitor.rules import Look
from unimodal_monitor.verdict import judge

MIN_LEVELS = 4
"""A low-noise end, an interior of two, and a level beyond it."""


class Monitor:
    """Watches one network in training.

    Args:
        denoiser: the network behind the contract `denoiser(noised, sigma) -> denoised`.
        probe_set: images and labels, the same for the whole run.
        sigmas: (K,) levels in data units, ascending; None for the paper's nine, scaled by the data's standard
            deviation. Levels that the schedule cannot express are snapped or dropped.
        layers: dotted names of the layers to probe, the one to judge last; None to choose.
        probe: fitted for every layer and level; None for `RidgeProbe()`.
        alarm: what to make of the checks in time; None for `Alarm()`. It is copied: each monitor has its own.
        num_draws: independent noises for each image.
        seed: of the noise.
        batch_size: inputs in one forward, all levels together.
        noised_input: False shows the network clean images and only tells it the level.

    Raises:
        ValueError: if labels are missing, a layer is unknown or silent, or too few levels are left.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        probe_set: ProbeSet,
        *,
        sigmas: Tensor | Sequence[float] | None = None,
        layers: Sequence[str] | str | None = None,
        probe: Probe | None = None,
        alarm: Alarm | None = None,
        num_draws: int = 1,
        seed: int = 0,
        batch_size: int = 512,
        noised_input: bool = True,
    ) -> None:
        if min(num_draws, batch_size) < 1:
            raise ValueError(f"num_draws and batch_size count from 1, got {num_draws} and {batch_size}")
        self.denoiser = denoiser
        self.probe_set = probe_set
        self.layers = find_layers(denoiser.network, layers)
        self.alarm = Alarm() if alarm is None else deepcopy(alarm)
        self.history: list[Check] = []
        wanted = _wanted_levels(probe_set, sigmas)
        self._num_wanted = len(wanted)
        self.protocol = Protocol(
            sigmas=_levels(denoiser, wanted),
            probe=RidgeProbe() if probe is None else probe,
            num_draws=num_draws,
            seed=seed,
            batch_size=batch_size,
            noised_input=noised_input,
        )
        _check_sizes(probe_set)

    def rehearse(self, precision: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        """One forward of two images, so that what cannot work fails before the training starts.

        Raises:
            ValueError: if a layer is silent or puts out something else than features.
            FloatingPointError: if features are not finite.
        """
        with leaving_no_trace(self.denoiser.network, seed=self.protocol.seed), capture(self.layers) as captured:
            noised, sigma = all_levels(
                self.probe_set.heldout.images[:2].to(self._device()), slice(0, 2), 0, self.protocol
            )
            with precision():
                check_finite(captured.run(lambda: self.denoiser(noised, sigma)))

    def check(
        self,
        step: int,
        *,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
        progress: Callable[[int], None] = lambda num_images: None,
    ) -> Check:
        """Look at the network; it, its gradients and every random state are left as they were.

        Args:
            step: of the training. The curve of step 0 is measured but arms nothing: the network is untrained.
            precision: gives the context of the forwards, such as autocast.
            progress: called with the number of images done since its last call.

        Returns:
            what was found; it is also the last of `history`.
        """
        start = time.perf_counter()
        with leaving_no_trace(self.denoiser.network, seed=self.protocol.seed), precision():
            outcomes = measure(
                self.denoiser, self.layers, self.probe_set, self.protocol, device=self._device(), progress=progress
            )
        sigmas, std = self.protocol.sigmas, self.probe_set.std
        curves = tuple(Curve.from_outcomes(layer, sigmas, std, outcomes[layer]) for layer in self.layers)
        verdict = judge(curves[-1])
        if step > 0:
            score_KM = outcomes[curves[-1].layer].score_KRM.double().mean(1).numpy()
            self.alarm.update(Look(self.alarm.num_checks + 1, step, curves[-1], score_KM))
        self.history[-1:] = [replace(check, outcomes={}) for check in self.history[-1:]]
        self.history.append(
            Check(
                step=step,
                curves=curves,
                verdict=verdict,
                state=self.alarm.state,
                evidence=self.alarm.explain(verdict),
                weights=weights_used(self.denoiser),
                seconds=time.perf_counter() - start,
                outcomes=outcomes,
            )
        )
        return self.history[-1]

    @property
    def num_images(self) -> int:
        """Images that a check passes through the network, at all levels each, counting draws."""
        return (len(self.probe_set.fit) + len(self.probe_set.heldout)) * self.protocol.num_draws

    def describe(self) -> str:
        """What a check will measure, in one sentence."""
        sigmas, (*others, judged) = self.protocol.sigmas, self.layers
        beyond = self._num_wanted - len(sigmas)
        return (
            f"{len(sigmas)} levels from sigma {sigmas[0]:.3g} to {sigmas[-1]:.3g}"
            + (f" ({beyond} of {self._num_wanted} are out of the schedule's reach)" if beyond else "")
            + f"; layers {', '.join([*others, f'{judged} (judged)'])}; probe fitted on {len(self.probe_set.fit)} images"
            + f" and scored on {len(self.probe_set.heldout)}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Primitives only: the history and the alarm."""
        return {"history": [check.to_dict() for check in self.history], "alarm": self.alarm.state_dict()}

    def load_state_dict(self, record: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises:
            ValueError: if the record was measured at other levels or layers: its history would not compare.
        """
        history = [Check.from_dict(check) for check in record["history"]]
        if history:
            theirs = [(curve.layer, curve.sigmas, curve.num_images) for curve in history[-1].curves]
            ours = [(layer, tuple(self.protocol.sigmas.tolist()), len(self.probe_set.heldout)) for layer in self.layers]
            if theirs != ours:
                raise ValueError(
                    f"the saved history was measured as {theirs}, this monitor measures {ours}; "
                    "use the same probe set, layers and levels, or start without that state"
                )
        self.history = history
        self.alarm.load_state_dict(record["alarm"])

    def _device(self) -> torch.device:
        parameter = next(self.denoiser.network.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device


def _wanted_levels(probe_set: ProbeSet, sigmas: Tensor | Sequence[float] | None) -> Tensor:
    wanted = paper_sigmas(probe_set.std) if sigmas is None else torch.as_tensor(sigmas, dtype=torch.float64)
    if wanted.ndim != 1 or not (wanted > 0).all() or not wanted.isfinite().all() or not (wanted.diff() > 0).all():
        raise ValueError(f"sigmas must be positive and ascending, got {wanted.tolist()}")
    return wanted


def _levels(denoiser: Denoiser, wanted: Tensor) -> Tensor:
    levels = denoiser.snap(wanted)
    if len(levels) < MIN_LEVELS:
        raise ValueError(
            f"the schedule can express {len(levels)} of the {len(wanted)} levels {wanted.tolist()}: "
            f"{levels.tolist()}; a curve needs {MIN_LEVELS}, so give other `sigmas`"
        )
    return levels


def _check_sizes(probe_set: ProbeSet) -> None:
    for name, images in (("fit", probe_set.fit), ("heldout", probe_set.heldout)):
        if len(images) < 2 * probe_set.num_classes:
            raise ValueError(
                f"{len(images)} images of {name!r} are too few for {probe_set.num_classes} classes; "
                "give ten or more of each class"
            )
