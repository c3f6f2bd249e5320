"""UnimodalMonitor: the Lightning callback. The only module that knows Lightning."""

import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback
from torch import Tensor, nn

from unimodal_monitor.alarm.alarm import Alarm, AlarmState
from unimodal_monitor.budget import Budget
from unimodal_monitor.check import Check
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.detect.find import find_denoiser
from unimodal_monitor.glance import Glance
from unimodal_monitor.monitor import Monitor
from unimodal_monitor.probes.base import Probe
from unimodal_monitor.report.base import Reporter
from unimodal_monitor.report.console import ConsoleReporter, progress_bar
from unimodal_monitor.report.figures import FigureReporter
from unimodal_monitor.report.jsonl import JsonlReporter, unused_folder
from unimodal_monitor.report.loggers import LoggerReporter
from unimodal_monitor.report.scalars import headline

MAX_FAILURES = 3
MAX_OVERHEAD = 0.01
ASK_EVERY = 20
"""Steps after which the budget is asked again, where no interval was given."""
SHARDED = ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy")


class UnimodalMonitor(Callback):
    """Watches the curve of probe accuracy against noise while a diffusion model trains.

    Works in a Trainer of `pytorch_lightning` and of `lightning.pytorch`. It needs no change of the
    LightningModule, changes nothing of the training, and an error inside a check does not end the run.

    Args:
        probe_set: the images of every check.
        every_n_steps: optimizer steps between looks; one more is made before the first step. None looks as often as
            `max_overhead` allows.
        max_overhead: seconds of looks per second of training that are not exceeded, such as 0.01: a look that does not
            fit in is put off. None for no limit; 0.01 where `every_n_steps` is None as well.
        full_every: at least one of so many looks is a full check, the others may be glances that say "nothing has
            changed" from a few levels and images; 1 for full checks alone, which see a loss sooner for the same
            forwards.
        on_alarm: "warn", "stop" (ends the fit), or a function of the `Check`, when the alarm is raised.
        audit: when samples are drawn and compared with the members: "confirm" when the alarm is raised, a number n at
            every n-th check, None never.
        audit_seconds: that an audit may take; fewer samples are then drawn.
        net: the network in the LightningModule, by dotted name or itself; None finds it where there is one.
        schedule: the noise schedule, as `find_denoiser` takes it; None finds it.
        ema: averaged weights, by dotted name or itself; None finds them, False looks at the raw weights.
        condition: keyword arguments of every call of the network, such as the empty prompt's embedding.
        null_class: class number that means "no class", for networks that take one.
        denoiser: a ready `Denoiser`, or a function of the LightningModule that gives one, in place of the last five.
        sigmas: levels in data units; None for the paper's, scaled by the data.
        layers: dotted names within the network, the one to judge last; None to choose.
        probe: None for `RidgeProbe()`; `LogisticProbe()` is the paper's.
        alarm: None for `Alarm()`, or `Alarm.without_labels()` where there are none; it is copied.
        num_draws: noises for each image.
        batch_size: inputs in one forward of a check, all levels together.
        seed: of the noise.
        noised_input: False shows the network clean images and only tells it the level.
        witnesses: hear the other witnesses at every check: denoising gap, contamination, spikiness.
        folder: for `checks.jsonl` and the figures; None for `unimodal` beside the run's logs.

    Raises:
        ValueError: before the first step, if anything above does not fit the job.
    """

    def __init__(
        self,
        probe_set: ProbeSet,
        *,
        every_n_steps: int | None = None,
        max_overhead: float | None = None,
        full_every: int = 1,
        on_alarm: str | Callable[[Check], Any] = "warn",
        audit: str | int | None = "confirm",
        audit_seconds: float = 60.0,
        net: nn.Module | str | None = None,
        schedule: object | str | None = None,
        ema: object | str | bool | None = None,
        condition: Mapping[str, Any] | None = None,
        null_class: int | None = None,
        denoiser: Denoiser | Callable[[nn.Module], Denoiser] | None = None,
        sigmas: Tensor | Sequence[float] | None = None,
        layers: Sequence[str] | str | None = None,
        probe: Probe | None = None,
        alarm: Alarm | None = None,
        num_draws: int = 1,
        batch_size: int = 512,
        seed: int = 0,
        noised_input: bool = True,
        witnesses: bool = True,
        folder: Path | str | None = None,
    ) -> None:
        _check_choices(every_n_steps, on_alarm, audit, audit_seconds)
        if max_overhead is None and every_n_steps is None:
            max_overhead = MAX_OVERHEAD
        Budget(max_overhead)
        self.probe_set = probe_set
        self.every_n_steps = every_n_steps
        self.on_alarm = on_alarm
        self.audit = audit
        self.audit_seconds = audit_seconds
        self.folder = folder
        self._search: dict[str, Any] = {
            "net": net, "schedule": schedule, "ema": ema, "condition": condition, "null_class": null_class,
        }  # fmt: skip
        self._denoiser = denoiser
        self._options: dict[str, Any] = {
            "sigmas": sigmas, "layers": layers, "probe": probe, "alarm": alarm, "num_draws": num_draws,
            "batch_size": batch_size, "seed": seed, "noised_input": noised_input,
            "full_every": full_every, "max_overhead": max_overhead, "witnesses": witnesses,
        }  # fmt: skip
        self.written_to: Path | None = None
        self._monitor: Monitor | None = None
        self._reporters: list[Reporter] = []
        self._restored: Mapping[str, Any] = {}
        self._last_step = -1
        self._num_failures = 0

    @property
    def history(self) -> list[Check]:
        """The checks so far; empty before the fit."""
        return [] if self._monitor is None else self._monitor.history

    @property
    def glances(self) -> list[Glance]:
        """The glances so far, between the checks; empty before the fit."""
        return [] if self._monitor is None else self._monitor.glances

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the network, try one forward, and make the first check."""
        if trainer.fast_dev_run:
            return
        _refuse_sharded(trainer)
        denoiser, sharded = self._find_denoiser(trainer, pl_module), trainer.world_size > 1
        self._monitor = Monitor(denoiser, self.probe_set, **self._options, sharded=sharded)
        self._monitor.rehearse(_precision(trainer))
        self._reporters = self._make_reporters(trainer)
        self._last_step, self._num_failures = trainer.global_step, 0
        if trainer.is_global_zero:
            _write(trainer)(f"unimodal  {self._monitor.describe()}")
        if self._restored:
            self._monitor.load_state_dict(self._restored)
            self._restored = {}
        if self.history:
            self._publish(trainer)
        else:
            self._guarded_look(trainer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Look when the optimizer has passed another multiple of `every_n_steps`, and when the budget allows it."""
        step, every = trainer.global_step, self.every_n_steps or ASK_EVERY
        if self._monitor is None or step // every <= self._last_step // every:
            return
        self._last_step = step
        if trainer.strategy.reduce_boolean_decision(self._monitor.can_afford(), all=True):
            self._guarded_look(trainer)

    def state_dict(self) -> dict[str, Any]:
        """History and alarm: primitives only, so that `weights_only=True` loads them."""
        if self._monitor is None:
            return dict(self._restored)
        return self._monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until the fit starts."""
        self._restored = state_dict

    def _find_denoiser(self, trainer: Any, pl_module: Any) -> Denoiser:
        if isinstance(self._denoiser, Denoiser):
            return self._denoiser
        if self._denoiser is not None:
            return self._denoiser(pl_module)
        return find_denoiser(pl_module, callbacks=trainer.callbacks, **self._search)

    def _guarded_look(self, trainer: Any) -> None:
        """Look, and on all ranks together: if one fails, the look is dropped on all, and training goes on."""
        self._last_step = trainer.global_step
        if self._monitor is None or self._num_failures >= MAX_FAILURES:
            return
        before, failure, found = self._monitor.state_dict(), "", None
        try:
            with self._progress(trainer) as progress:
                found = self._monitor.look(trainer.global_step, precision=_precision(trainer), progress=progress)
        except Exception:
            failure = traceback.format_exc()
        if trainer.strategy.reduce_boolean_decision(bool(failure), all=False):
            self._monitor.load_state_dict(before)
            self._num_failures += 1
            _warn(trainer, _failure_message(trainer.global_step, self._num_failures, failure or "on another rank"))
            return
        self._num_failures = 0
        if trainer.world_size > 1:
            agreed = trainer.strategy.broadcast(self._monitor.state_dict())
            if not trainer.is_global_zero:
                self._monitor.load_state_dict(agreed)
        if isinstance(found, Check):
            self._audit(trainer)
        self._publish(trainer)
        self._report(trainer, found)
        if isinstance(found, Check) and self._is_newly_raised():
            self._act(trainer)

    def _publish(self, trainer: Any) -> None:
        """The headline on every rank, where `ModelCheckpoint` and `EarlyStopping` look for it."""
        if self.history:
            values = headline(self.history[-1])
            trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})

    def _report(self, trainer: Any, found: Check | Glance | None) -> None:
        """Console, files and loggers, on the first rank; a disk or a network that fails is told, not raised."""
        if not trainer.is_global_zero or self._monitor is None:
            return
        with nullcontext() if isinstance(found, Glance) else self._monitor.reporting():
            for reporter in self._reporters:
                self._tell(reporter, trainer, found)

    def _tell(self, reporter: Reporter, trainer: Any, found: Check | Glance | None) -> None:
        try:
            if isinstance(found, Glance):
                reporter.glance(found)
            else:
                reporter.report(self.history)
        except Exception as error:
            _warn(trainer, f"{type(reporter).__name__} could not report step {trainer.global_step}: {error!r}")

    def _is_newly_raised(self) -> bool:
        *earlier, last = self.history[-2:]
        return last.state is AlarmState.RAISED and all(check.state is not AlarmState.RAISED for check in earlier)

    def _audit(self, trainer: Any) -> None:
        """Count copies where it was asked for, on the first rank; a failure is told, not raised."""
        is_due = self.audit != "confirm" and self.audit is not None and len(self.history) % int(self.audit) == 0
        is_asked = self._is_newly_raised() if self.audit == "confirm" else is_due
        if not is_asked or not trainer.is_global_zero or self._monitor is None:
            return
        try:
            self._monitor.audit(precision=_precision(trainer), max_seconds=self.audit_seconds)
        except Exception:
            _warn(trainer, f"the copy audit at step {trainer.global_step} failed\n{traceback.format_exc()}")

    def _act(self, trainer: Any) -> None:
        """What the user asked for, once for each time the alarm is raised."""
        check = self.history[-1]
        if callable(self.on_alarm):
            try:
                self.on_alarm(check)
            except Exception:
                _warn(trainer, f"on_alarm failed at step {check.step}\n{traceback.format_exc()}")
            return
        stop = self.on_alarm == "stop"
        copies = "" if check.audit is None else f"; {check.audit.sentence()}"
        _warn(trainer, f"step {check.step}: {check.evidence}{copies}" + ("; the training stops" if stop else ""))
        trainer.should_stop = trainer.should_stop or stop

    def _make_reporters(self, trainer: Any) -> list[Reporter]:
        wanted = Path(self.folder or Path(trainer.log_dir or trainer.default_root_dir) / "unimodal")
        self.written_to = folder = wanted if self._restored else unused_folder(wanted)
        figures = FigureReporter(folder, training=self.probe_set.members.images)
        of_loggers = [LoggerReporter(logger) for logger in trainer.loggers]
        return [ConsoleReporter(_write(trainer)), JsonlReporter(folder), figures, *of_loggers]

    def _progress(self, trainer: Any) -> AbstractContextManager[Callable[[int], None]]:
        if not trainer.is_global_zero or self._monitor is None:
            return nullcontext(lambda num_images: None)
        return progress_bar(f"unimodal check at step {trainer.global_step}", self._monitor.num_images)


def _check_choices(every_n_steps: int | None, on_alarm: Any, audit: Any, audit_seconds: float) -> None:
    if every_n_steps is not None and every_n_steps < 1:
        raise ValueError(f"every_n_steps = {every_n_steps}; it counts optimizer steps, from 1")
    if on_alarm not in ("warn", "stop") and not callable(on_alarm):
        raise ValueError(f"on_alarm = {on_alarm!r}; it is 'warn', 'stop' or a function of the Check")
    is_count = isinstance(audit, int) and not isinstance(audit, bool) and audit > 0
    if audit not in ("confirm", None) and not is_count:
        raise ValueError(f"audit = {audit!r}; it is 'confirm', a number of checks from 1, or None")
    if not audit_seconds >= 0:
        raise ValueError(f"audit_seconds = {audit_seconds}; it is the longest that an audit may take, from 0")


def _precision(trainer: Any) -> Callable[[], AbstractContextManager[Any]]:
    return trainer.precision_plugin.forward_context


def _write(trainer: Any) -> Callable[[str], None]:
    """Prints a line, above the training's progress bar where there is one."""
    bar = trainer.progress_bar_callback
    return print if bar is None else bar.print


def _refuse_sharded(trainer: Any) -> None:
    name = type(trainer.strategy).__name__
    if name in SHARDED:
        raise ValueError(
            f"{name} shards the parameters, and a check runs only a part of the network; "
            "the monitor supports single devices and DDP"
        )


def _failure_message(step: int, num_failures: int, cause: str) -> str:
    if num_failures >= MAX_FAILURES:
        return f"the check at step {step} failed, the {num_failures}rd in a row; no more are made\n{cause}"
    return f"the check at step {step} failed and is left out; the training goes on\n{cause}"


def _warn(trainer: Any, message: str) -> None:
    if trainer.is_global_zero:
        warnings.warn(f"unimodal: {message}", stacklevel=2)
