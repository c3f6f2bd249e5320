"""Monitor: the core for any training loop. `check(step)` looks at the network and says what it found."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unimodal_monitor.alarm.alarm import Alarm, AlarmState
from unimodal_monitor.budget import REPORT, Budget
from unimodal_monitor.check import Check
from unimodal_monitor.copies.audit import Audit
from unimodal_monitor.copies.draw import audit_copies
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.denoisers.network import holding_weights, weights_used
from unimodal_monitor.forward.distributed import Ranks
from unimodal_monitor.forward.hooks import capture, find_layers
from unimodal_monitor.forward.isolation import leaving_no_trace
from unimodal_monitor.forward.levels import reachable_levels, wanted_levels
from unimodal_monitor.forwards import Forwards, Noising
from unimodal_monitor.glance import Glance, Glances, glance_portion
from unimodal_monitor.probes.base import Probe
from unimodal_monitor.probes.ridge import RidgeProbe
from unimodal_monitor.stats.verdict import judge
from unimodal_monitor.survey import Survey

Precision = Callable[[], AbstractContextManager[Any]]
Progress = Callable[[int], None]


class Monitor:
    """Watches one network in training.

    Args:
        denoiser: the network behind the contract `denoiser(noised, sigma) -> denoised`.
        probe_set: images and labels, the same for the whole run.
        sigmas: (K,) levels in data units, ascending; None for the paper's nine, scaled by the data's standard
            deviation. Levels that the schedule cannot express are snapped or dropped.
        layers: dotted names of the layers to probe, the one to judge last; None to choose.
        probe: fitted for every layer and level; None for `RidgeProbe()`.
        alarm: what to make of the checks in time; None for `Alarm()`, or `Alarm.without_labels()` where there are
            none. It is copied: each monitor has its own.
        num_draws: independent noises for each image.
        seed: of the noise.
        batch_size: inputs in one forward, all levels together.
        noised_input: False shows the network clean images and only tells it the level.
        full_every: at least one of so many looks is a full check, the others may be glances; 1 for full checks alone,
            which see a loss sooner for the same forwards (benchmarks).
        max_overhead: what `can_afford` allows, in seconds of checks per second of training, such as 0.01.
        sharded: share the images over the ranks of torch.distributed; every rank then makes every call.
        witnesses: hear the other witnesses at every check (gap, contamination, spikiness), for a sixth more
            forwards. Without labels they are all there is.

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
        full_every: int = 1,
        max_overhead: float | None = None,
        sharded: bool = False,
        witnesses: bool = True,
    ) -> None:
        if min(num_draws, batch_size, full_every) < 1:
            raise ValueError(
                f"num_draws, batch_size and full_every count from 1, got {num_draws}, {batch_size} and {full_every}"
            )
        self.denoiser = denoiser
        self.probe_set = probe_set
        self.layers = find_layers(denoiser.network, layers)
        self.probe = RidgeProbe() if probe is None else probe
        self.alarm = _usual_alarm(probe_set) if alarm is None else deepcopy(alarm)
        self.batch_size = batch_size
        self.ranks = Ranks.of_this_process() if sharded else Ranks()
        self.history: list[Check] = []
        wanted = wanted_levels(probe_set.std, sigmas)
        self._num_wanted = len(wanted)
        self.noising = Noising(reachable_levels(denoiser, wanted), num_draws, seed, noised_input)
        self._judged, order = list(self.layers)[-1], glance_portion(probe_set, seed=seed)
        self._survey = Survey(
            probe_set,
            self.probe,
            layers=list(self.layers),
            noising=self.noising,
            ranks=self.ranks,
            order=order,
            witnesses=witnesses,
            for_glances=full_every > 1,
        )
        self._glances = Glances(
            probe_set, self.probe, layer=self._judged, noising=self.noising, full_every=full_every, portion=order
        )
        self._budget = Budget(max_overhead)
        self._seconds_per_forward: float | None = None

    def rehearse(self, precision: Precision = nullcontext) -> None:
        """One forward of a whole batch, so that what cannot work fails before the training starts.

        Raises:
            ValueError: if a layer is silent or puts out something else than features.
            FloatingPointError: if features are not finite.
        """
        num_images = min(max(2, self.batch_size // len(self.noising.sigmas)), len(self.probe_set.heldout))
        start = time.perf_counter()
        with self._looking(self.layers, precision, progress=lambda _: None) as forwards:
            for _ in forwards.batches(self.probe_set.heldout, torch.arange(num_images)):
                pass
        num_forwards = num_images * len(self.noising.sigmas) * self.noising.num_draws
        self._seconds_per_forward = (time.perf_counter() - start) / num_forwards

    def look(
        self, step: int, *, precision: Precision = nullcontext, progress: Progress = lambda _: None
    ) -> Check | Glance:
        """A glance where one will do, otherwise a check; see `check` for the arguments."""
        if self._needs_check():
            return self.check(step, precision=precision, progress=progress)
        start, noising = time.perf_counter(), self._glances.noising_after(self.history[-1])
        glance = self._glance(step, noising, precision)
        if glance is not None:
            self._glances.taken.append(glance)
            return glance
        in_vain = self._glances.num_forwards(noising)
        check = self.check(step, precision=precision, progress=progress)
        self.history[-1] = replace(
            check, num_forwards=check.num_forwards + in_vain, seconds=time.perf_counter() - start
        )
        return self.history[-1]

    def can_afford(self) -> bool:
        """Whether the next look keeps to `max_overhead`, a glance with the check that may follow it at once.

        Time counts from the first look.
        """
        return self._budget.allows(*(["check"] if self._needs_check() else ["glance", "check"]))

    def reporting(self) -> AbstractContextManager[None]:
        """What is done with a check within the block, such as figures, takes time that is not the training's."""
        return self._budget.spending(REPORT)

    def check(self, step: int, *, precision: Precision = nullcontext, progress: Progress = lambda _: None) -> Check:
        """Look at the network; it, its gradients and every random state are left as they were.

        Args:
            step: of the training. The curve of step 0 is measured but arms nothing: the network is untrained.
            precision: gives the context of the forwards, such as autocast.
            progress: called with the number of images done since its last call.

        Returns:
            what was found; it is also the last of `history`.
        """
        start = time.perf_counter()
        with self._budget.spending("check"), self._looking(self.layers, precision, progress=progress) as forwards:
            seen = self._survey.run(forwards)
        verdict = judge(seen.curves[-1])
        if step > 0:
            self.alarm.update(seen.look(self.alarm.num_checks + 1, step))
        self.history[-1:] = [replace(check, outcomes={}) for check in self.history[-1:]]
        self.history.append(
            Check(
                step=step,
                curves=seen.curves,
                verdict=verdict,
                state=self.alarm.state,
                evidence=self.alarm.explain(verdict),
                weights=weights_used(self.denoiser),
                seconds=time.perf_counter() - start,
                num_forwards=self.num_forwards,
                overhead=self._budget.overhead,
                testimony=seen.testimony.to_dict(),
                outcomes=seen.outcomes,
            )
        )
        return self.history[-1]

    def audit(
        self,
        *,
        precision: Precision = nullcontext,
        num_samples: int = 300,
        max_seconds: float | None = None,
    ) -> Audit:
        """Draw samples and count the copies of members among them; the last check keeps the result.

        Its time is outside `max_overhead`.

        Args:
            precision: gives the context of the forwards, such as autocast.
            num_samples: to draw; 300 without a copy bound the fraction by 1.2 %.
            max_seconds: after which no further batch of samples is begun.
        """
        with self._budget.aside(), precision(), holding_weights(self.denoiser):
            audit = audit_copies(
                self.denoiser,
                self.probe_set.members.images,
                num_samples=num_samples,
                seed=self.noising.seed,
                batch_size=min(self.batch_size, 64),
                max_seconds=max_seconds,
            )
        self.history[-1:] = [replace(check, audit=audit) for check in self.history[-1:]]
        return audit

    @property
    def glances(self) -> list[Glance]:
        """Looks between the checks that found nothing changed."""
        return self._glances.taken

    @property
    def num_images(self) -> int:
        """Images that a check passes through the network, at all levels each."""
        return self._survey.num_images

    @property
    def num_forwards(self) -> int:
        """Inputs that a check passes through the network; further draws are for the probe alone."""
        return self._survey.num_forwards

    def describe(self) -> str:
        """What a check will measure and about what it will cost, in one sentence."""
        sigmas = self.noising.sigmas
        beyond = self._num_wanted - len(sigmas)
        seconds = None if self._seconds_per_forward is None else self._seconds_per_forward * self.num_forwards
        limit = self._budget.max_overhead
        return (
            f"{len(sigmas)} levels from sigma {sigmas[0]:.3g} to {sigmas[-1]:.3g}"
            + (f" ({beyond} of {self._num_wanted} are out of the schedule's reach)" if beyond else "")
            + f"; {self._survey.describe()}; {self.num_forwards:,} forwards a check"
            + (f", about {seconds / self.ranks.size:.0f} s" if seconds else "")
            + (f", at most {limit:.1%} of the training's time" if limit else "")
        )

    def state_dict(self) -> dict[str, Any]:
        """Primitives only: the history, the glances and the alarm."""
        return {
            "history": [check.to_dict() for check in self.history],
            "num_views": self._survey.num_views,
            "glances": [glance.to_dict() for glance in self.glances],
            "alarm": self.alarm.state_dict(),
        }

    def load_state_dict(self, record: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises:
            ValueError: if the record was measured at other levels or layers: its history would not compare.
        """
        history = [Check.from_dict(check) for check in record["history"]]
        if history:
            theirs = [(curve.layer, curve.sigmas, curve.num_images) for curve in history[-1].curves]
            if theirs != self._survey.frame:
                raise ValueError(
                    f"the saved history was measured as {theirs}, this monitor measures {self._survey.frame}; "
                    "use the same probe set, layers and levels, or start without that state"
                )
            seen, ours = record.get("num_views"), self._survey.num_views
            if ours and seen not in (0, ours):
                raise ValueError(
                    f"the saved history has two views of {seen} images, this monitor of {ours}; "
                    "use the same probe set, or start without that state"
                )
        self.alarm.load_state_dict(record["alarm"])
        self.history = history
        self._glances.taken = [Glance.from_dict(glance) for glance in record["glances"]]

    def _needs_check(self) -> bool:
        """Whether the next look has to be a check: nothing to compare with yet, or it is its turn."""
        if not self.alarm.num_checks or self.alarm.state is AlarmState.FADING or self.probe_set.is_unlabelled:
            return True
        return not self._glances.may_follow(self.history[-1])

    def _glance(self, step: int, noising: Noising, precision: Precision) -> Glance | None:
        """Levels and images just enough to say that nothing has changed; None if they do not say so."""
        start, layers = time.perf_counter(), {self._judged: self.layers[self._judged]}
        with self._budget.spending("glance"), self._looking(layers, precision, noising=noising) as forwards:
            glance = self._glances.take(forwards, self.alarm, step, ranks=self.ranks)
        if glance is None:
            return None
        return replace(glance, seconds=time.perf_counter() - start, overhead=self._budget.overhead)

    @contextmanager
    def _looking(
        self,
        layers: Mapping[str, nn.Module],
        precision: Precision,
        *,
        noising: Noising | None = None,
        progress: Progress = lambda _: None,
    ) -> Iterator[Forwards]:
        """Forwards that leave no trace, with hooks on the layers."""
        parameter = next(self.denoiser.network.parameters(), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        noising, size = noising or self.noising, self.batch_size
        with (
            leaving_no_trace(self.denoiser.network, seed=self.noising.seed),
            precision(),
            holding_weights(self.denoiser),
            capture(layers) as captured,
        ):
            yield Forwards(self.denoiser, captured, noising, device=device, batch_size=size, progress=progress)


def _usual_alarm(probe_set: ProbeSet) -> Alarm:
    return Alarm.without_labels(are_images=probe_set.has_images) if probe_set.is_unlabelled else Alarm()
