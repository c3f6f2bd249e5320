"""UnimodalMonitor: Lightning's hooks around a `Monitor`. The only module that knows Lightning, besides the demo."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import Callback
from torch import Tensor, nn
from torch.utils.data import Dataset

from unimodal_monitor.alarm.alarm import Alarm
from unimodal_monitor.budget import Budget
from unimodal_monitor.check import Check
from unimodal_monitor.data.job_images import draw_probe_set_of
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.detect.attributes import resolve
from unimodal_monitor.detect.find import find_denoiser
from unimodal_monitor.detect.search import Search
from unimodal_monitor.forward.distributed import Ranks
from unimodal_monitor.monitor import Monitor
from unimodal_monitor.reaction import Action, Reaction
from unimodal_monitor.report.console import ConsoleReporter, warn
from unimodal_monitor.report.loggers import LoggerReporter
from unimodal_monitor.report.scalars import headline
from unimodal_monitor.signals import Signal

OPTIONS = (
    *("every_n_train_steps", "max_overhead", "on_alarm", "copy_audit", "copy_audit_seconds", "sigmas", "layer"),
    *("extra_layers", "probe", "signals", "alarm", "batch_size", "seed", "name"),
)
"""Arguments that go to `Monitor`."""
DRAWN = ("members", "heldout", "num_members", "num_heldout", "transform", "seed")  # that choose the probe images
SHARDED = ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy")


class UnimodalMonitor(Callback):
    """Watches a diffusion model while it trains, in a Trainer of `pytorch_lightning` or `lightning.pytorch`.

    It changes nothing of the LightningModule and of the training, and an error inside a check does not end the run.

    >>> monitor = UnimodalMonitor(every_n_train_steps=1000, on_alarm="stop")
    >>> monitor.history  # Trainer(callbacks=[monitor]).fit(...) fills it
    []

    Args:
        probe_set: Images of every check; None to draw them from the next two.
        members: What the model trains on, as for `ProbeSet.from_datasets`; None for the training dataloader's dataset.
        heldout: Images that the model never sees; None for the validation dataloader's dataset.
        transform: As for `ProbeSet.from_datasets`; one of two arguments, `(images, module)`, gets the LightningModule.
        num_members: How many to draw; None for up to 4,096.
        num_heldout: How many to draw, to fit and to score the probe; None for up to 10,000.
        every_n_train_steps: See `Monitor`; one more check is made before the first step.
        max_overhead: See `Monitor`.
        on_alarm: "warn", "stop" (ends the fit), or a function of the `Check`; see `Monitor`.
        copy_audit: See `Monitor`.
        copy_audit_seconds: See `Monitor`.
        net: Network in the LightningModule, by dotted name or itself; None finds it where there is one.
        schedule: Noise schedule, as `find_denoiser` takes it; None finds it.
        ema: Averaged weights, by dotted name or itself; None finds them, False reads the raw weights.
        condition: Keyword arguments of every call of the network, such as the empty prompt's embedding; "batch" for
            those of the first image that is trained on, where the network is not trained without.
        null_class: Class number that means "no class", for networks that take one.
        denoiser: `Denoiser`, or a function of the LightningModule that gives one, in place of the last five; with `net`
            any callable `denoiser(noised, sigma) -> denoised`.
        sigmas: See `Monitor`, as are `layer`, `extra_layers`, `probe`, `signals`, `alarm`, `batch_size` and `seed`.
        dirpath: Folder for `checks.jsonl` and the figures; None for one called `name` beside the run's logs.
        name: Prefix of scalars, and name of the folder and of the saved state: two monitors in one Trainer need two.

    Raises:
        ValueError: Before the first step, or after the few that it takes to see it, if something does not fit the job.
    """

    if TYPE_CHECKING:  # every argument is an attribute

        def __getattr__(self, name: str) -> Any: ...

    def __init__(
        self,
        probe_set: ProbeSet | None = None,
        *,
        members: Dataset | None = None,  # type: ignore[type-arg]
        heldout: Dataset | None = None,  # type: ignore[type-arg]
        transform: Callable[..., Any] | None = None,
        num_members: int | None = None,
        num_heldout: int | None = None,
        every_n_train_steps: int | None = None,
        max_overhead: float | None = None,
        on_alarm: Action | Mapping[str, Action] = "warn",
        copy_audit: str | int | None = "confirm",
        copy_audit_seconds: float = 60.0,
        net: nn.Module | str | None = None,
        schedule: object | str | None = None,
        ema: object | str | bool | None = None,
        condition: Mapping[str, Any] | str | None = None,
        null_class: int | None = None,
        denoiser: Denoiser | Callable[[nn.Module], Denoiser] | None = None,
        sigmas: Tensor | Sequence[float] | None = None,
        layer: str | None = None,
        extra_layers: Sequence[str] = (),
        probe: Any = None,
        signals: Sequence[Signal] | None = None,
        alarm: Alarm | None = None,
        batch_size: int = 512,
        seed: int = 0,
        dirpath: Path | str | None = None,
        name: str = "unimodal",
    ) -> None:
        Budget(every_n_train_steps, max_overhead)
        Reaction(on_alarm, copy_audit, copy_audit_seconds)
        vars(self).update({key: value for key, value in locals().items() if key not in ("self", "__class__")})
        if probe_set is not None and any(getattr(self, key) is not None for key in DRAWN if key != "seed"):
            raise ValueError("give probe_set=, or members=, heldout= and the like, not both")
        self.history: list[Check] = []
        self.written_to: Path | None = None
        self._monitor: Monitor | None = None
        self._search: Search | None = None
        self._recording = ExitStack()
        self._saved: dict[str, Any] = {}
        self._is_loaded = self._goes_on = False

    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint; the name in it keeps two monitors apart."""
        return self._generate_state_key(name=self.name)

    @property
    def monitor(self) -> Monitor | None:
        """The `Monitor` at work, with its `denoiser` and `verification`; None outside a fit."""
        return self._monitor

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the network, try one forward, and make the first check; a second fit of a trainer goes on."""
        if trainer.fast_dev_run:
            return
        saved = self.state_dict()
        self._goes_on = self._is_loaded or (bool(saved) and trainer.global_step >= max(1, saved["last_step"]))
        ranks = Ranks.of_this_process(pl_module.device) if trainer.world_size > 1 else Ranks()
        self._search = Search(pl_module, net=self.net, schedule=self.schedule, condition=self.condition, ranks=ranks)
        self._search.word = saved.get("settled") if self._goes_on else None
        self._begin(trainer, pl_module)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Record the step that follows, until the denoiser is verified."""
        if (recorder := self._monitor or self._search) is not None:
            self._recording.enter_context(recorder.watching(batch))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """End the recording, and make a check where one is due."""
        self._recording.close()
        if self._monitor is None and self._search is not None and self._search.settle():
            self._begin(trainer, pl_module)
        self._step(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Say that a fit was too short to verify the denoiser, or to find it."""
        if self._monitor is not None:
            self._monitor.settle(is_last=True)
        elif self._search is not None:
            warn(f"{self.name}: no check was made, the training ended too soon to find this: {self._search.reason}")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Let go of the network as after a fit: Lightning tears nothing down then."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let go of the network; history and state stay."""
        self._saved, self._monitor, self._search = self.state_dict(), None, None
        with suppress(ValueError):  # a step that was interrupted contradicts nothing
            self._recording.close()
        for method in ("log", "log_dict"):  # bound to the module by Lightning
            vars(self).pop(method, None)

    def state_dict(self) -> dict[str, Any]:
        """History and alarm: primitives only, so that `weights_only=True` loads them."""
        return self._saved if self._monitor is None else self._monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until the fit starts."""
        self._saved, self._is_loaded, self.written_to = state_dict, True, None

    def _begin(self, trainer: Any, pl_module: Any) -> None:
        """Make the monitor and try one forward; what is not found is looked for in the next training steps."""
        assert self._search is not None
        try:
            monitor = self._make_monitor(trainer, pl_module, self._search)
            line = monitor.start()
        except Exception as error:
            if self._search.can_help(error):
                return
            raise ValueError(self._search.explain(error)) from error
        monitor.reporters.say(line)
        if self._goes_on:
            monitor.load_state_dict(self._saved)
        self._monitor, self._saved, self._is_loaded, self.history = monitor, {}, False, monitor.history
        (self._publish if self._goes_on else self._step)(trainer)

    def _make_monitor(self, trainer: Any, pl_module: Any, search: Search) -> Monitor:
        if (strategy := type(trainer.strategy).__name__) in SHARDED:
            what = f"{strategy} shards the parameters, and a check runs only a part of the network"
            raise ValueError(f"{what}; the monitor supports single devices and DDP")
        denoiser = self.denoiser
        net: Any = resolve(pl_module, self.net, argument="net") if isinstance(self.net, str) else self.net
        if denoiser is None:
            given = {"ema": self.ema, "null_class": self.null_class, "condition": search.condition(self.condition)}
            found = find_denoiser(pl_module, callbacks=trainer.callbacks, **given, **search.found)
            denoiser = search.adapt(found)
        elif not isinstance(denoiser, Denoiser | nn.Module):
            denoiser = denoiser(pl_module) if net is None else denoiser
        given_by_user = "denoiser" if self.denoiser is not None else None if self.schedule is None else "schedule"
        if search.images is None:
            drawn = {key: getattr(self, key) for key in DRAWN}
            search.images = self.probe_set or draw_probe_set_of(trainer, pl_module, **drawn)
        beside_logs = Path(trainer.log_dir or trainer.default_root_dir) / self.name  # a collective call
        monitor = Monitor(
            denoiser,
            search.images,
            **{key: getattr(self, key) for key in OPTIONS},
            net=net,
            precision=trainer.precision_plugin.forward_context,
            distributed=trainer.world_size > 1,
            dirpath=self.dirpath or beside_logs,
            reporters=[
                ConsoleReporter(_write(trainer), name=self.name),
                *(LoggerReporter(logger, prefix=self.name) for logger in trainer.loggers),
            ],
        )
        monitor.checker.watch_in(pl_module, given=given_by_user, callbacks=trainer.callbacks)
        monitor.checker.settled = search.word
        return monitor

    def _step(self, trainer: Any) -> None:
        if self._monitor is not None and self._monitor.step(trainer.global_step) is not None:
            self.written_to = self._monitor.written_to
            self._publish(trainer)
            trainer.should_stop = trainer.should_stop or self._monitor.should_stop

    def _publish(self, trainer: Any) -> None:
        """The headline on every rank, where `ModelCheckpoint` and `EarlyStopping` look for it."""
        if self.history:
            values = headline(self.history[-1], prefix=self.name)
            trainer.callback_metrics.update({key: torch.tensor(value) for key, value in values.items()})


def _write(trainer: Any) -> Callable[[str], None]:
    """Prints a line, above the training's progress bar where there is one."""
    bar = trainer.progress_bar_callback
    return print if bar is None else bar.print
