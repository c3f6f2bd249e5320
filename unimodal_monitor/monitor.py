"""Monitor: for any training loop. When to check, failing soft, the alarm, the copy audit, reporters, saved state."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
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
from unimodal_monitor.denoisers.base import Denoiser, as_denoiser, device_of
from unimodal_monitor.detect.watch import Verification
from unimodal_monitor.forward.distributed import Ranks
from unimodal_monitor.forward.hooks import capture
from unimodal_monitor.forward.isolation import leaving_no_trace
from unimodal_monitor.forward.layers import find_layers
from unimodal_monitor.forward.noise import noise_levels
from unimodal_monitor.method import MIN_IMAGES, Go, forward, measure, plan_check
from unimodal_monitor.probes.sklearn_probe import as_probe
from unimodal_monitor.reaction import Reaction
from unimodal_monitor.report.base import Figures, Reporter
from unimodal_monitor.report.console import ConsoleReporter, progress_bar, warn
from unimodal_monitor.report.figures import FigureReporter
from unimodal_monitor.report.jsonl import JsonlReporter, unused_folder
from unimodal_monitor.report.startup import startup_line
from unimodal_monitor.resume import measured_with, restore_state, save_state
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
        max_overhead: Upper limit on the time of the checks as a fraction of the training's, such as 0.01; a check over
            it is postponed. None for no limit with `every_n_train_steps`, and for 0.01 without.
        on_alarm: "warn", "stop" (sets `should_stop`), or a function of the `Check`, when the alarm is raised.
        copy_audit: When samples are compared with the members: "confirm" when the alarm is raised, a number n at
            every n-th check, None never.
        copy_audit_seconds: Seconds that an audit may take; fewer samples are then drawn.
        sigmas: (K,) levels in data units, ascending; None for the paper's nine, scaled by the data's standard
            deviation. Levels that the schedule cannot express are snapped or dropped.
        layer: Dotted name of the layer that is judged; None to choose.
        extra_layers: Dotted names of further layers to probe.
        probe: Probe, or a scikit-learn classifier; None for `RidgeProbe()`.
        signals: Functions of `Measured`; None for `DEFAULT_SIGNALS`; empty saves their forwards.
        alarm: Turns checks into a state; None for `Alarm()`, or `Alarm.without_labels()` without labels.
        batch_size: Inputs in one forward, all levels together.
        seed: Seed of noise and augmentation.
        precision: Gives the context of the denoiser's calls, such as autocast.
        distributed: Share the images over the ranks of torch.distributed; every rank then makes every call.
        dirpath: Folder for `checks.jsonl` and figures; None writes no files.
        reporters: Where checks are shown; None for the console.
        name: Prefix of scalars and messages.

    A ValueError names an argument that is out of range or does not fit the network or the images.
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
            raise ValueError(f"batch_size = {batch_size}; must be a number of inputs, from 1")
        self.reaction = Reaction(on_alarm, copy_audit, copy_audit_seconds)
        self.budget = Budget(every_n_train_steps, max_overhead)
        self.denoiser = as_denoiser(denoiser, net=net)
        self.layers = find_layers(self.denoiser.network, layer, extra_layers)
        self.signals = DEFAULT_SIGNALS if signals is None else tuple(signals)
        levels, self._num_unreachable = noise_levels(self.denoiser, probe_set.std, sigmas)
        device = device_of(self.denoiser.network)
        self.ranks = Ranks.of_this_process(device) if distributed else Ranks()
        names, least = tuple(self.layers), max(MIN_IMAGES, self.ranks.size)
        plan = partial(plan_check, probe_set, as_probe(probe), layers=names, sigmas=levels, seed=seed)
        self.plan = plan(with_pairs=bool(self.signals), min_images=least, device=device)
        default = Alarm.without_labels(are_images=probe_set.has_images) if probe_set.is_unlabelled else Alarm()
        self.alarm = default if alarm is None else alarm
        self.batch_size, self.precision, self.name = batch_size, precision, name
        self.reporters: list[Reporter] = [ConsoleReporter(name=name)] if reporters is None else list(reporters)
        self.dirpath = None if dirpath is None else Path(dirpath)
        self.written_to, self._own_folder = cast(Path | None, None), cast(str | None, None)
        self.history: list[Check] = []
        self.memory, self.should_stop, self._num_failures = AlarmMemory(), False, 0
        self.verification = Verification()

    def start(self) -> str:
        """Try one forward of a whole batch, and return what a check measures and about what it costs."""
        run = self.plan.passes["paired" if "paired" in self.plan.passes else "heldout"]
        num_images = min(max(2, self.batch_size // len(self.plan.sigmas)), len(run.rows))
        start = time.perf_counter()
        with self._isolated(Ranks(), "trial forward") as go:
            list(go(replace(run, rows=run.rows[:num_images], labels=None, to_output=False)))
        seconds = (time.perf_counter() - start) * self.plan.num_images / num_images / self.ranks.size
        num, limit = self._num_unreachable, self.budget.max_overhead
        return startup_line(self.plan, num_unreachable=num, seconds=seconds, max_overhead=limit)

    def step(self, global_step: int) -> Check | None:
        """Make a check where one is due, and return it: call it before the training with 0, then after every step.

        A check that fails is left out with a warning; after three in a row no more are made. The untrained network of
        step 0 arms nothing.
        """
        is_due = self._num_failures < MAX_FAILURES and self.budget.is_due(global_step)
        if not is_due or self.ranks.any(not self.budget.can_afford()):
            return None
        try:
            self.check(global_step)
        except Exception:
            self._num_failures += 1
            what = "again: no further checks are made" if self._num_failures >= MAX_FAILURES else "and is left out"
            self._warn(f"the check at step {global_step} failed {what}\n{traceback.format_exc()}")
            return None
        self._num_failures = 0
        self._after_check()
        return self.history[-1]

    def check(self, step: int) -> Check:
        """Measure the network now; it, its gradients and every random state are left as they were.

        What goes wrong is raised on all ranks alike; the history and the alarm are then as before.
        """
        start = time.perf_counter()
        with self.budget.spending(), ExitStack() as stack:
            go = self.ranks.together(lambda: stack.enter_context(self._isolated(self.ranks, f"check at step {step}")))
            measured = measure(go, self.plan, self.ranks).without_errors(self.verification.no_gap)
            judge = partial(judge_check, measured, self.signals, self.alarm, self.memory, step=step)
            check, memory = self.ranks.together(judge)
            weights = self.ranks.together(lambda: self.denoiser.weights_used)
        memory, state, evidence = self.ranks.broadcast((memory, check.state, check.evidence))
        check = replace(check, state=state, evidence=evidence, weights=weights, num_forwards=self.plan.num_forwards)
        check = replace(check, seconds=time.perf_counter() - start, overhead=self.budget.overhead)
        self.memory, self.history[-1:] = memory, [*(replace(c, measured=None) for c in self.history[-1:]), check]
        return check

    def audit(self, *, num_samples: int = 300, max_seconds: float | None = None) -> Audit:
        """Draw samples and count the copies of members among them; the last check keeps the result.

        300 samples without a copy bound the fraction by 1.2 %; no batch begins after `max_seconds`. Rank 0 works, the
        others wait; this time is outside `max_overhead`.
        """

        def work() -> Audit | None:
            if self.ranks.rank:
                return None
            count = partial(audit_copies, self.denoiser, self.plan.probe_set.members.images, seed=self.plan.seed)
            with self.precision(), self.denoiser.holding_weights():
                return count(num_samples=num_samples, batch_size=min(self.batch_size, 64), max_seconds=max_seconds)

        with self.budget.aside():
            own = self.ranks.together(work)
        sent = self.ranks.broadcast(own and replace(own, samples=None))
        audit = own or cast(Audit, sent)
        self.history[-1:] = [replace(check, audit=audit) for check in self.history[-1:]]
        return audit

    def state_dict(self) -> dict[str, Any]:
        """Primitives only: the history and the alarm's memory."""
        settings = measured_with(self.plan, self.alarm, self.denoiser)
        return save_state(settings, self.memory, self.history, folder=self.written_to)

    def load_state_dict(self, record: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; a ValueError names the difference if the record was measured otherwise."""
        self.memory, self.history = restore_state(record, measured_with(self.plan, self.alarm, self.denoiser))
        self.budget.last_step = self.history[-1].step if self.history else None
        self._own_folder = record["folder"]

    @contextmanager
    def _isolated(self, ranks: Ranks, title: str) -> Iterator[Go]:
        """Forwards that leave no trace, with hooks on the layers."""
        with (
            progress_bar(f"{self.name} {title}", self.plan.num_images // ranks.size, is_shown=not ranks.rank) as bar,
            leaving_no_trace(self.denoiser.network, seed=self.plan.seed),
            self.denoiser.holding_weights(),
            capture(self.layers) as hooks,
        ):
            yield partial(
                forward, self.denoiser, hooks, sigmas=self.plan.sigmas, seed=self.plan.seed, ranks=ranks,
                batch_size=self.batch_size, precision=self.precision, progress=bar,
            )  # fmt: skip

    def _after_check(self) -> None:
        """Count copies, report and react; a failure of one of them is a warning, as is a signal that fails."""
        before, now = [self.plan.missing, *(check.missing for check in self.history[-2:])][-2:]
        for name in now.keys() - before.keys():
            self._warn(f"{name} was not measured at step {self.history[-1].step}: {now[name]}")
        if self.verification.no_gap is None and self.reaction.is_audit_due(self.history):
            self._softly("the copy audit", partial(self.audit, max_seconds=self.reaction.copy_audit_seconds))
        if self.ranks.rank == 0:
            with self.budget.spending(is_report=True):
                self._softly("the report", self._report)
        stops = self._softly("on_alarm", partial(self.reaction.act, self.history, warn=self._warn))
        self.should_stop = self.should_stop or bool(stops)

    def _report(self) -> None:
        if self.dirpath is not None and self.written_to is None:
            self.written_to = unused_folder(self.dirpath.absolute(), own=self._own_folder)
            self.reporters += [JsonlReporter(self.written_to), FigureReporter(self.written_to)]
        figures = Figures(self.history, training=self.plan.probe_set.members.images)
        for reporter in self.reporters:
            self._softly(type(reporter).__name__, partial(reporter.report, self.history, figures))

    def _softly(self, what: str, work: Callable[[], object]) -> object:
        try:
            return work()
        except Exception:
            self._warn(f"{what} failed at step {self.history[-1].step}\n{traceback.format_exc()}")
            return None

    def _warn(self, message: str) -> None:
        if self.ranks.rank == 0:
            warn(f"{self.name}: {message}")
