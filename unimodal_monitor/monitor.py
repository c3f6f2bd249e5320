"""Monitor: for any training loop. When to check, failing soft, the alarm, the copy audit, reporters, saved state."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from unimodal_monitor.alarm.alarm import Alarm, AlarmMemory
from unimodal_monitor.budget import Budget
from unimodal_monitor.check import Check, judge_check
from unimodal_monitor.copies.audit import Audit, audit_copies
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.denoisers.base import Denoiser, as_denoiser
from unimodal_monitor.forward.distributed import Ranks
from unimodal_monitor.forward.hooks import capture
from unimodal_monitor.forward.isolation import leaving_no_trace
from unimodal_monitor.forward.layers import find_layers
from unimodal_monitor.forward.noise import noise_levels
from unimodal_monitor.method import MIN_IMAGES, Go, Pass, forward, measure, plan_check
from unimodal_monitor.probes.sklearn_probe import as_probe
from unimodal_monitor.reaction import Reaction
from unimodal_monitor.report.base import Figures, Reporter
from unimodal_monitor.report.console import ConsoleReporter, progress_bar, warn
from unimodal_monitor.report.figures import FigureReporter
from unimodal_monitor.report.jsonl import JsonlReporter, unused_folder
from unimodal_monitor.report.startup import startup_line
from unimodal_monitor.resume import restore_state, save_state
from unimodal_monitor.signals import DEFAULT_SIGNALS, Signal

MAX_FAILURES = 3  # failed checks in a row after which no more are made


class Monitor:
    """Checks one network while it trains.

    >>> monitor = Monitor(net, probe_set, every_n_train_steps=100, layer="blocks.1", reporters=())
    >>> checks = [monitor.step(step) for step in range(201)]  # a training step of `net` goes before each
    >>> [check.step for check in checks if check is not None]
    [0, 100, 200]

    Args:
        denoiser: `Denoiser`, or with `net` any callable `denoiser(noised, sigma) -> denoised`.
        probe_set: Images and labels, the same for the whole run.
        net: Module whose layers are hooked, where `denoiser` is a plain function.
        every_n_train_steps: Optimizer steps between checks; None to check as often as `max_overhead` allows.
        max_overhead: Seconds of checks per second of training that are not exceeded, such as 0.01: a check that does
            not fit in is put off. None for no limit; 0.01 where `every_n_train_steps` is None as well.
        on_alarm: "warn", "stop" (sets `should_stop`), or a function of the `Check`, when the alarm is raised.
        copy_audit: When samples are compared with the members: "confirm" when the alarm is raised, a number n at
            every n-th check, None never.
        copy_audit_seconds: Seconds that an audit may take; fewer samples are then drawn.
        sigmas: (K,) levels in data units, ascending; None for the paper's nine, scaled by the data's standard
            deviation. Levels that the schedule cannot express are snapped or dropped.
        layer: Dotted name of the layer that is judged; None to choose.
        extra_layers: Dotted names of further layers to probe.
        probe: Probe, or a scikit-learn classifier; None for `RidgeProbe()`.
        signals: Functions of `Measured`; None for `DEFAULT_SIGNALS`. Empty leaves out the forwards that they need, and
            with them the rules that need the gap.
        alarm: What to make of the checks in time; None for `Alarm()`, or `Alarm.without_labels()` without labels.
        batch_size: Inputs in one forward, all levels together.
        seed: Seed of noise and augmentation.
        precision: Gives the context of the denoiser's calls, such as autocast.
        distributed: Share the images over the ranks of torch.distributed; every rank then makes every call.
        dirpath: Folder for `checks.jsonl` and figures; None writes no files.
        reporters: Where checks are shown; None for the console.
        name: Prefix of scalars and messages.

    Raises:
        ValueError: If an argument is out of range, labels are missing, a layer is unknown, or too few levels are left.
    """

    def __init__(
        self,
        denoiser: Denoiser | Callable[[Tensor, Tensor], Tensor],
        probe_set: ProbeSet,
        *,
        net: nn.Module | None = None,
        every_n_train_steps: int | None = None,
        max_overhead: float | None = None,
        on_alarm: str | Callable[[Check], Any] = "warn",
        copy_audit: str | int | None = "confirm",
        copy_audit_seconds: float = 60.0,
        sigmas: Tensor | Sequence[float] | None = None,
        layer: str | None = None,
        extra_layers: Sequence[str] = (),
        probe: Any = None,
        signals: Sequence[Signal] | None = None,
        alarm: Alarm | None = None,
        batch_size: int = 512,
        seed: int = 0,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
        distributed: bool = False,
        dirpath: Path | str | None = None,
        reporters: Sequence[Reporter] | None = None,
        name: str = "unimodal",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size}; it is a number of inputs, from 1")
        self.reaction = Reaction(on_alarm, copy_audit, copy_audit_seconds)
        self.budget = Budget(every_n_train_steps, max_overhead)
        self.denoiser = as_denoiser(denoiser, net=net)
        self.layers = find_layers(self.denoiser.network, layer, extra_layers)
        self.signals = DEFAULT_SIGNALS if signals is None else tuple(signals)
        levels, self._num_unreachable = noise_levels(self.denoiser, probe_set.std, sigmas)
        self.ranks = Ranks.of_this_process() if distributed else Ranks()
        self.plan = plan_check(
            probe_set,
            as_probe(probe),
            layers=tuple(self.layers),
            sigmas=levels,
            seed=seed,
            with_pairs=bool(self.signals),
            min_images=max(MIN_IMAGES, self.ranks.size),
        )
        default = Alarm.without_labels(are_images=probe_set.has_images) if probe_set.is_unlabelled else Alarm()
        self.alarm = default if alarm is None else alarm
        self.batch_size, self.precision, self.name = batch_size, precision, name
        self.reporters: list[Reporter] = [ConsoleReporter(name=name)] if reporters is None else list(reporters)
        self.dirpath = None if dirpath is None else Path(dirpath)
        self.written_to: Path | None = None
        self._own_folder: str | None = None
        self.history: list[Check] = []
        self.memory, self.should_stop = AlarmMemory(), False
        self._num_failures = 0

    def start(self) -> str:
        """Try one forward of a whole batch, and return what a check measures and about what it costs."""
        run = self.plan.passes["paired" if "paired" in self.plan.passes else "heldout"]
        num_images = min(max(2, self.batch_size // len(self.plan.sigmas)), len(run.images))
        start = time.perf_counter()
        with self._isolated(Ranks(), lambda _: None) as go:
            list(go(Pass(run.images[:num_images], run.noise_ids[:num_images])))
        seconds = (time.perf_counter() - start) * self.plan.num_images / num_images / self.ranks.size
        num, limit = self._num_unreachable, self.budget.max_overhead
        return startup_line(self.plan, num_unreachable=num, seconds=seconds, max_overhead=limit)

    def step(self, global_step: int) -> Check | None:
        """Make a check where one is due, and return it: call it before the training with 0, then after every step.

        A check that fails is left out with a warning; after three in a row no more are made. The network of step 0 is
        measured, but arms nothing: it is untrained.
        """
        if self._num_failures >= MAX_FAILURES or not self.budget.is_due(global_step):
            return None
        if self.ranks.any(not self.budget.can_afford()):
            return None
        try:
            self.check(global_step)
        except Exception:
            self._num_failures += 1
            what = "the third in a row; no more are made" if self._num_failures >= MAX_FAILURES else "it is left out"
            self._warn(f"the check at step {global_step} failed, {what}\n{traceback.format_exc()}")
            return None
        self._num_failures = 0
        self._after_check()
        return self.history[-1]

    def check(self, step: int) -> Check:
        """Measure the network now; it, its gradients and every random state are left as they were.

        What goes wrong is raised on all ranks alike; the history and the alarm are then as before.
        """
        start = time.perf_counter()
        bar = progress_bar(f"{self.name} check at step {step}", self.plan.num_images // self.ranks.size)
        with self.budget.spending(), bar as progress, self._isolated(self.ranks, progress) as go:
            measured = measure(go, self.plan, self.ranks)
            judge = partial(judge_check, measured, self.signals, self.alarm, self.memory, step=step)
            check, memory = self.ranks.together(judge)
        self.memory = self.ranks.broadcast(memory)
        self.history[-1:] = [replace(past, measured=None) for past in self.history[-1:]]
        check = replace(check, weights=self.denoiser.weights_used, num_forwards=self.plan.num_forwards)
        self.history += [replace(check, seconds=time.perf_counter() - start, overhead=self.budget.overhead)]
        return self.history[-1]

    def audit(self, *, num_samples: int = 300, max_seconds: float | None = None) -> Audit:
        """Draw samples and count the copies of members among them; the last check keeps the result.

        Rank 0 works and the others wait. The time is outside `max_overhead`.

        Args:
            num_samples: Number of samples; 300 without a copy bound the fraction by 1.2 %.
            max_seconds: Seconds after which no further batch of samples is begun.
        """
        images, size = self.plan.probe_set.members.images, min(self.batch_size, 64)
        count = partial(
            audit_copies, self.denoiser, images, num_samples=num_samples, seed=self.plan.seed, batch_size=size
        )
        with self.budget.aside(), self.precision(), self.denoiser.holding_weights():
            own = self.ranks.together(lambda: None if self.ranks.rank else count(max_seconds=max_seconds))
        sent = self.ranks.broadcast(own and replace(own, samples=None))
        audit = own or cast(Audit, sent)
        self.history[-1:] = [replace(check, audit=audit) for check in self.history[-1:]]
        return audit

    def state_dict(self) -> dict[str, Any]:
        """Primitives only: the history and the alarm's memory."""
        return save_state(self.plan, self.alarm, self.memory, self.history, folder=self.written_to)

    def load_state_dict(self, record: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; a ValueError names the difference if the record was measured otherwise."""
        self.memory, self.history = restore_state(record, self.plan, self.alarm)
        self.budget.last_step = self.history[-1].step if self.history else None
        self._own_folder = record["folder"]

    @contextmanager
    def _isolated(self, ranks: Ranks, progress: Callable[[int], object]) -> Iterator[Go]:
        """Forwards that leave no trace, with hooks on the layers."""
        network = self.denoiser.network
        with (
            leaving_no_trace(network, seed=self.plan.seed),
            self.denoiser.holding_weights(),
            capture(self.layers) as hooks,
        ):
            yield partial(
                forward, self.denoiser, hooks, sigmas=self.plan.sigmas, seed=self.plan.seed, ranks=ranks,
                batch_size=self.batch_size, precision=self.precision, progress=progress,
            )  # fmt: skip

    def _after_check(self) -> None:
        """Count copies, report and react; a failure of one of them is a warning."""
        if self.reaction.is_audit_due(self.history):
            self._softly("the copy audit", partial(self.audit, max_seconds=self.reaction.copy_audit_seconds))
        if self.ranks.rank == 0:
            with self.budget.spending(is_report=True):
                if self.dirpath is not None and self.written_to is None:
                    self.written_to = unused_folder(self.dirpath.absolute(), own=self._own_folder)
                    self.reporters += [JsonlReporter(self.written_to), FigureReporter(self.written_to)]
                figures = Figures(self.history, training=self.plan.probe_set.members.images)
                for reporter in self.reporters:
                    self._softly(type(reporter).__name__, partial(reporter.report, self.history, figures))
        if self._softly("on_alarm", partial(self.reaction.act, self.history, warn=self._warn)):
            self.should_stop = True

    def _softly(self, what: str, work: Callable[[], object]) -> object:
        try:
            return work()
        except Exception:
            self._warn(f"{what} failed at step {self.history[-1].step}\n{traceback.format_exc()}")
            return None

    def _warn(self, message: str) -> None:
        if self.ranks.rank == 0:
            warn(f"{self.name}: {message}")
