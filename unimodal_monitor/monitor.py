"""Monitor: for any training loop. When to check, failing soft, the alarm, the copy audit, reporters, saved state."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unimodal_monitor.alarm.alarm import Alarm, AlarmMemory
from unimodal_monitor.budget import Budget
from unimodal_monitor.check import Check, audited, judge_check
from unimodal_monitor.checker import Checker
from unimodal_monitor.copies.audit import Audit
from unimodal_monitor.data.job_images import draw_probe_set
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.detect.find import find_denoiser
from unimodal_monitor.detect.verification import Verification
from unimodal_monitor.reaction import Action, Reaction
from unimodal_monitor.report.base import Reporter
from unimodal_monitor.report.reporters import Reporters
from unimodal_monitor.resume import measured_with, restore_state, save_state
from unimodal_monitor.signals import DEFAULT_SIGNALS, Signal

DRAWN = {"num_members", "num_heldout", "transform"}  # options of `Monitor.of` that go to `draw_probe_set`
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
        on_alarm: "warn", "stop" (sets `should_stop`), or a function of the `Check`, when the state becomes memorizing;
            or a dict of them by state, {"onset": "warn", "memorizing": "stop"}.
        copy_audit: When samples are compared with the members: "confirm" when it becomes memorizing, a number n at
            every n-th check, None never.
        copy_audit_seconds: Seconds that an audit may take; fewer samples are then drawn.
        sigmas: (K,) levels in data units, ascending; None for the paper's nine, scaled by the data's standard
            deviation. Levels that the schedule cannot express are snapped or dropped.
        layer: Dotted name of the layer that is judged; None to choose.
        extra_layers: Dotted names of further layers to probe.
        probe: Probe, or a scikit-learn classifier; None for `RidgeProbe()`.
        signals: Functions of `Measured`; None for `DEFAULT_SIGNALS`; empty saves their forwards.
        alarm: Turns checks into a state; None for `Alarm()`.
        batch_size: Inputs in one forward, all levels together.
        seed: Seed of noise and augmentation.
        precision: Gives the context of the denoiser's calls, such as autocast.
        distributed: Share the images over the ranks of torch.distributed; every rank then makes every call.
        dirpath: Folder for `checks.jsonl` and figures; None writes no files.
        reporters: Where checks are shown; None for the console.
        name: Prefix of scalars and messages.

    A ValueError names an argument that does not fit the network or the images.
    """

    def __init__(
        self,
        denoiser: Denoiser | Callable[[Tensor, Tensor], Tensor],
        probe_set: ProbeSet,
        *,
        net: nn.Module | None = None,
        every_n_train_steps: int | None = None,
        max_overhead: float | None = None,
        on_alarm: Action | Mapping[str, Action] = "warn",
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
        self.reaction = Reaction(on_alarm, copy_audit, copy_audit_seconds)
        self.budget = Budget(every_n_train_steps, max_overhead)
        self.signals = DEFAULT_SIGNALS if signals is None else tuple(signals)
        self.checker = Checker(
            denoiser, probe_set, net=net, sigmas=sigmas, layer=layer, extra_layers=extra_layers, probe=probe, seed=seed,
            with_pairs=bool(self.signals), batch_size=batch_size, precision=precision, is_shared=distributed, name=name,
        )  # fmt: skip
        self.ranks = self.checker.ranks
        self.alarm = Alarm() if alarm is None else alarm
        self.reporters = Reporters(reporters, dirpath=dirpath, name=name, is_silent=self.ranks.rank > 0)
        self.history: list[Check] = []
        self.memory, self.should_stop, self._num_failures = AlarmMemory(), False, 0

    @classmethod
    def of(
        cls,
        net: nn.Module,
        schedule: object | str | None = None,
        *,
        members: Any,
        heldout: Any,
        ema: object | bool | None = None,
        condition: Mapping[str, Any] | None = None,
        null_class: int | None = None,
        **options: Any,
    ) -> "Monitor":
        """The monitor of a network and its scheduler, as scripts with `accelerate` have them; call `watching`.

        All is as for `find_denoiser` and `Monitor`; `members`, `heldout`, `num_members`, `num_heldout` and `transform`
        as for `UnimodalMonitor`.

        >>> images = MoLRG().sample(60, seed=3)[0]
        >>> Monitor.of(net, members=images[:20], heldout=images[20:], reporters=()).denoiser.weights_used
        'raw'
        """
        owner, own = nn.Module(), {name: options.pop(name) for name in DRAWN & options.keys()}
        vars(owner).update(scheduler=schedule, net=net)
        denoiser = find_denoiser(owner, net=net, schedule=schedule, ema=ema, condition=condition, null_class=null_class)
        images = draw_probe_set(members, heldout, module=net, seed=options.get("seed", 0), **own)
        monitor = cls(denoiser, images, **options)
        monitor.checker.watch_in(owner, given="schedule" if isinstance(schedule, str) else None)
        return monitor

    @property
    def denoiser(self) -> Denoiser:
        """What is measured now."""
        return self.checker.denoiser

    @property
    def verification(self) -> Verification:
        """What the training steps say about the denoiser."""
        return self.checker.verification

    @property
    def written_to(self) -> Path | None:
        """Folder that holds the checks and figures, from the first report on."""
        return self.reporters.written_to

    def start(self) -> str:
        """Try one forward of a whole batch, and return what a check measures and about what it costs."""
        return self.checker.start(max_overhead=self.budget.max_overhead)

    @contextmanager
    def watching(self, batch: object = None) -> Iterator[None]:
        """Record the training step in the block, forward and backward, until it tells whether the denoiser is right.

        `batch` holds the images, if they are known. Then `verification` says what was found, and blocks do nothing.

        Raises:
            ValueError: If the training steps contradict the denoiser; it names what agrees with them, if anything does.
        """
        with self.checker.recording(batch):
            yield
        self.settle()

    def settle(self, *, is_last: bool = False) -> None:
        """End the watching if its steps tell enough, or no more follow: see `watching`."""
        line = self.checker.settle(is_last=is_last)
        if line and self.verification.word is not None:  # the checks before measured something else
            self.history[:], self.memory, self.budget.last_step = [], AlarmMemory(), None
        self.reporters.say(line)

    def step(self, global_step: int) -> Check | None:
        """Make a check where one is due, and return it: call it before the training with 0, then after every step.

        A check that fails is left out with a warning, after three in a row all are. That of step 0 arms nothing.
        """
        is_due = self._num_failures < MAX_FAILURES and self.budget.is_due(global_step)
        if not is_due or self.ranks.any(not self.budget.can_afford()):
            return None
        try:
            self.check(global_step)
        except Exception:
            self._num_failures += 1
            what = "again: no further checks are made" if self._num_failures >= MAX_FAILURES else "and is left out"
            self.reporters.warn(f"the check at step {global_step} failed {what}\n{traceback.format_exc()}")
            return None
        self._num_failures = 0
        self._after_check()
        return self.history[-1]

    def check(self, step: int) -> Check:
        """Measure the network now; it, its gradients and every random state are left as they were.

        What goes wrong is raised on all ranks alike; the history and the alarm are then as before.
        """
        start = time.perf_counter()
        with self.budget.spending():
            measured, weights = self.checker.measure(f"check at step {step}")
            measured = measured.without_errors(self.verification.no_gap)
            judge = partial(judge_check, measured, self.signals, self.alarm, self.memory, step=step)
            check, memory = self.ranks.together(judge)
        memory, state, evidence = self.ranks.broadcast((memory, check.state, check.evidence))
        check = replace(check, state=state, evidence=evidence, weights=weights, overhead=self.budget.overhead)
        check = replace(check, num_forwards=self.checker.plan.num_forwards, seconds=time.perf_counter() - start)
        self.memory, self.history[-1:] = memory, [*(replace(c, measured=None) for c in self.history[-1:]), check]
        return check

    def audit(self, *, num_samples: int = 300, max_seconds: float | None = None) -> Audit:
        """Draw samples and count the copies of members among them; the last check keeps the result.

        300 samples without a copy bound the fraction by 1.2 %; no batch begins after `max_seconds`, not counted.
        """
        with self.budget.aside():
            audit = self.checker.audit(num_samples=num_samples, max_seconds=max_seconds)
        if self.history:
            self.history[-1], self.memory = audited(self.history[-1], audit, self.alarm, self.memory)
        return audit

    def state_dict(self) -> dict[str, Any]:
        """Primitives only: the history and the alarm's memory, and the schedule= that the training steps agree with."""
        settings = measured_with(self.checker.plan, self.alarm, self.denoiser)
        return save_state(settings, self.memory, self.history, self.checker.settled, folder=self.written_to)

    def load_state_dict(self, record: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; a ValueError names what was measured otherwise."""
        self.checker.resume_with(record.get("settled"))
        self.memory, history = restore_state(record, measured_with(self.checker.plan, self.alarm, self.denoiser))
        self.history[:] = history
        self.budget.last_step = self.history[-1].step if self.history else None
        self.reporters.own_folder = record["folder"]

    def _after_check(self) -> None:
        """Count copies, report and react; a failure of one of them is a warning, as is a signal that fails."""
        softly = partial(self.reporters.softly, step=(step := self.history[-1].step))
        before, now = [self.checker.plan.missing, *(check.missing for check in self.history[-2:])][-2:]
        for name in now.keys() - before.keys():
            self.reporters.warn(f"{name} was not measured at step {step}: {now[name]}")
        if self.verification.no_gap is None and self.reaction.is_audit_due(self.history):
            softly("the copy audit", partial(self.audit, max_seconds=self.reaction.copy_audit_seconds))
        with self.budget.spending(is_report=True):
            self.reporters.report(self.history, training=self.checker.plan.probe_set.members.images)
        act = partial(self.reaction.act, self.history, warn=self.reporters.warn)
        self.should_stop = self.should_stop or bool(softly("on_alarm", act))
