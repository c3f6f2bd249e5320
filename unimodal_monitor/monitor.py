"""Monitor: the core for any training loop. `check(step)` looks at the network and says what it found."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unimodal_monitor.alarm import Alarm, AlarmState
from unimodal_monitor.audit import Audit
from unimodal_monitor.budget import Budget
from unimodal_monitor.check import Check
from unimodal_monitor.copies import audit_copies
from unimodal_monitor.curve import Curve
from unimodal_monitor.data import ProbeSet
from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.denoisers.network import holding_weights, weights_used
from unimodal_monitor.features import capture, find_layers
from unimodal_monitor.forwards import Forwards, Noising
from unimodal_monitor.glance import Glance, Glances, glance_portion
from unimodal_monitor.isolation import leaving_no_trace
from unimodal_monitor.levels import reachable_levels, wanted_levels
from unimodal_monitor.measure import Listener, Measurement, hear_all, measure
from unimodal_monitor.probes.base import Probe
from unimodal_monitor.probes.ridge import RidgeProbe
from unimodal_monitor.ranks import Ranks
from unimodal_monitor.rules.base import Look
from unimodal_monitor.verdict import judge
from unimodal_monitor.witnesses import FEWEST, Testimony, Witnesses

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
        usual = Alarm.without_labels if probe_set.is_unlabelled else Alarm
        self.alarm = usual() if alarm is None else deepcopy(alarm)
        self.batch_size = batch_size
        self.ranks = Ranks.of_this_process() if sharded else Ranks()
        self.history: list[Check] = []
        wanted = wanted_levels(probe_set.std, sigmas)
        self._num_wanted = len(wanted)
        self.noising = Noising(reachable_levels(denoiser, wanted), num_draws, seed, noised_input)
        _check_sizes(probe_set)
        self._judged = list(self.layers)[-1]
        self._glances = Glances(
            probe_set,
            self.probe,
            layer=self._judged,
            noising=self.noising,
            full_every=full_every,
            portion=glance_portion(probe_set, seed=seed),
        )
        self._witnesses: Witnesses | None = None
        if witnesses or probe_set.is_unlabelled:
            fewest, heldout = max(FEWEST, self.ranks.size), self._glances.portion.heldout
            self._witnesses = Witnesses(probe_set, heldout, noising=self.noising, layer=self._judged, fewest=fewest)
            reason = self._witnesses.missing.get("contamination")
            if probe_set.is_unlabelled and reason:
                raise ValueError(f"without labels the curve is that of the members' ICR, and {reason}")
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
            measured, testimony = self._measure(forwards)
        curves: tuple[Curve, ...]
        if measured is None:
            curves = (self._curve_without_labels(testimony),)
        else:
            curves = tuple(
                Curve.from_outcomes(layer, self.noising.sigmas, self.probe_set.std, measured.outcomes[layer])
                for layer in self.layers
            )
        verdict = judge(curves[-1])
        if step > 0:
            self.alarm.update(self._look_of(step, curves[-1], measured, testimony))
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
                num_forwards=self.num_forwards,
                overhead=self._budget.overhead,
                testimony=testimony.to_dict(),
                outcomes={} if measured is None else measured.outcomes,
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
        return self._num_probed + self._num_heard

    @property
    def num_forwards(self) -> int:
        """Inputs that a check passes through the network; further draws are for the probe alone."""
        return (self._num_probed * self.noising.num_draws + self._num_heard) * len(self.noising.sigmas)

    @property
    def _num_probed(self) -> int:
        return 0 if self.probe_set.is_unlabelled else len(self.probe_set.fit) + len(self.probe_set.heldout)

    @property
    def _num_heard(self) -> int:
        """Images that pass for the witnesses alone; held-out images do only where no probe is scored on them."""
        if self._witnesses is None:
            return 0
        return self._witnesses.num_images + (len(self._witnesses.heldout) if self.probe_set.is_unlabelled else 0)

    def describe(self) -> str:
        """What a check will measure and about what it will cost, in one sentence."""
        sigmas, (*others, judged) = self.noising.sigmas, [layer for layer, _ in self._curves()]
        beyond = self._num_wanted - len(sigmas)
        seconds = None if self._seconds_per_forward is None else self._seconds_per_forward * self.num_forwards
        limit = self._budget.max_overhead
        return (
            f"{len(sigmas)} levels from sigma {sigmas[0]:.3g} to {sigmas[-1]:.3g}"
            + (f" ({beyond} of {self._num_wanted} are out of the schedule's reach)" if beyond else "")
            + f"; layers {', '.join([*others, f'{judged} (judged)'])}; {self._describe_images()}"
            + f"; {self.num_forwards:,} forwards a check"
            + (f", about {seconds / self.ranks.size:.0f} s" if seconds else "")
            + (f", at most {limit:.1%} of the training's time" if limit else "")
        )

    def _describe_images(self) -> str:
        if self._witnesses is None or not self.probe_set.is_unlabelled:
            return f"probe fitted on {len(self.probe_set.fit)} images and scored on {len(self.probe_set.heldout)}"
        num_views, num_pairs = self._witnesses.num_views, len(self._witnesses.heldout)
        return f"no labels: two views of {num_views} members, and {num_pairs} members against as many held-out images"

    def state_dict(self) -> dict[str, Any]:
        """Primitives only: the history, the glances and the alarm."""
        return {
            "history": [check.to_dict() for check in self.history],
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
            ours = [(layer, tuple(self.noising.sigmas.tolist()), num_images) for layer, num_images in self._curves()]
            if theirs != ours:
                raise ValueError(
                    f"the saved history was measured as {theirs}, this monitor measures {ours}; "
                    "use the same probe set, layers and levels, or start without that state"
                )
        self.history = history
        self._glances.taken = [Glance.from_dict(glance) for glance in record["glances"]]
        self.alarm.load_state_dict(record["alarm"])

    def _curves(self) -> list[tuple[str, int]]:
        """Layer of each curve of a check, with the number of its images."""
        if self._witnesses is not None and self.probe_set.is_unlabelled:
            return [(self._judged, self._witnesses.num_views)]
        return [(layer, len(self.probe_set.heldout)) for layer in self.layers]

    def _measure(self, forwards: Forwards) -> tuple[Measurement | None, Testimony]:
        """The probe where there are labels, and the witnesses where they are wanted."""
        witnesses, listener, measured = self._witnesses, None, None
        if witnesses is not None:
            witnesses.forget()
        if witnesses is not None and len(witnesses.heldout):
            listener = Listener(witnesses.heldout, witnesses.hear_heldout)
        portion = self._glances.portion if self._glances.full_every > 1 else None
        if not self.probe_set.is_unlabelled:
            measured = measure(
                forwards, self.probe_set, self.probe, ranks=self.ranks, portion=portion, listener=listener
            )
        elif listener is not None:
            once = forwards.with_noising(self.noising.once())
            hear_all(once, self.probe_set.heldout, listener.rows, listen=listener.hear, ranks=self.ranks)
        return measured, Testimony() if witnesses is None else witnesses.hear(forwards, ranks=self.ranks)

    def _curve_without_labels(self, testimony: Testimony) -> Curve:
        if testimony.contamination is None:
            raise ValueError(f"without labels the curve is that of the ICR: {testimony.missing['contamination']}")
        cleanliness_KN = testimony.contamination.cleanliness_KN
        return Curve.without_labels(self._judged, self.noising.sigmas, self.probe_set.std, cleanliness_KN)

    def _look_of(self, step: int, curve: Curve, measured: Measurement | None, testimony: Testimony) -> Look:
        """The check as the alarm's rules see it."""
        icr = testimony.contamination
        clean_KN = None if icr is None else icr.cleanliness_KN.numpy()
        if measured is not None:
            score_KM = measured.outcomes[self._judged].score_KM
            glance_KM = measured.glance[self._judged].score_KM if measured.glance else None
        elif clean_KN is not None:
            score_KM, glance_KM = clean_KN, None
        return Look(self.alarm.num_checks + 1, step, curve, score_KM, glance_KM, testimony.pairs, clean_KN)

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


def _check_sizes(probe_set: ProbeSet) -> None:
    if probe_set.is_unlabelled:
        return
    for name, images in (("fit", probe_set.fit), ("heldout", probe_set.heldout)):
        if len(images) < 2 * probe_set.num_classes:
            raise ValueError(
                f"{len(images)} images of {name!r} are too few for {probe_set.num_classes} classes; "
                "give ten or more of each class"
            )
