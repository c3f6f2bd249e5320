"""UnimodalMonitor in real Trainers."""

import csv
import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from scripted import scripted_alarm
from tiny_job import TinyJob, tiny_loader, tiny_probe_set, tiny_trainer

from unimodal_monitor import AlarmState, EDMDenoiser, RidgeProbe, UnimodalMonitor, read_checks

HEADLINE = ("rise", "rise_low", "rise_high", "peak_sigma", "peak_accuracy", "peak_score", "shape", "state", "seconds")


def fit(folder, monitor, *, job=None, ckpt_path=None, **options):
    job = TinyJob() if job is None else job
    trainer = tiny_trainer(folder, callbacks=[monitor, *options.pop("callbacks", [])], **options)
    trainer.fit(job, tiny_loader(), ckpt_path=ckpt_path)
    return trainer


def steps_of(monitor):
    return [check.step for check in monitor.history]


def test_checks_are_made_at_the_start_and_at_every_multiple(tmp_path):
    """Step 0, then every 20 optimizer steps."""
    monitor = UnimodalMonitor(tiny_probe_set(), every_n_train_steps=20)
    fit(tmp_path, monitor)
    assert steps_of(monitor) == [0, 20, 40]
    assert [check.weights for check in monitor.history] == ["raw", "ema", "ema"]


def test_a_denoiser_may_be_made_from_the_module_or_be_a_function_with_its_network(tmp_path):
    options = {"layer": "blocks.1", "every_n_train_steps": 9}
    monitor = UnimodalMonitor(tiny_probe_set(), denoiser=lambda job: EDMDenoiser(job.net), **options)
    fit(tmp_path, monitor, max_steps=1)
    assert steps_of(monitor) == [0]
    with pytest.raises(ValueError, match="never called blocks.1"):
        fit(tmp_path, UnimodalMonitor(tiny_probe_set(), denoiser=lambda x, sigma: x / 2, net="net", **options))


def test_accumulated_micro_batches_make_one_check_per_step(tmp_path):
    """The hook is called for each micro-batch with the same global step."""
    monitor = UnimodalMonitor(tiny_probe_set(), every_n_train_steps=5)
    fit(tmp_path, monitor, accumulate_grad_batches=2, max_steps=7)
    assert steps_of(monitor) == [0, 5]


def test_the_callback_keeps_what_it_is_given(tmp_path):
    """Every argument, unchanged, under its own name."""
    probe_set, probe = tiny_probe_set(), RidgeProbe()
    monitor = UnimodalMonitor(
        probe_set, every_n_train_steps=3, probe=probe, extra_layers=["blocks.0"], dirpath=tmp_path
    )
    assert monitor.probe_set is probe_set
    assert monitor.probe is probe
    assert (monitor.every_n_train_steps, monitor.extra_layers, monitor.dirpath) == (3, ["blocks.0"], tmp_path)
    assert monitor.max_overhead is None


def test_scalars_reach_the_logger_between_multiples_of_its_interval(tmp_path):
    """The check at step 7 is logged although the trainer logs every 50 steps."""
    monitor, logger = UnimodalMonitor(tiny_probe_set(), every_n_train_steps=7), CSVLogger(tmp_path)
    fit(tmp_path, monitor, logger=logger, log_every_n_steps=50, max_steps=8)
    logger.finalize("success")
    with (tmp_path / "lightning_logs/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows if row["unimodal/rise"]] == [0, 7]
    assert float(rows[-1]["unimodal/rise"]) == pytest.approx(monitor.history[-1].verdict.rise)


def test_files_lie_beside_the_logs_and_load_as_the_same_objects(tmp_path):
    """checks.jsonl gives back the history; the figures are there."""
    monitor = UnimodalMonitor(tiny_probe_set(), every_n_train_steps=5)
    fit(tmp_path, monitor, logger=CSVLogger(tmp_path), max_steps=6)
    folder = tmp_path / "lightning_logs/version_0/unimodal"
    assert monitor.written_to == folder
    assert read_checks(folder) == monitor.history
    assert {"curve.png", "history.png", "evidence.png"} <= {path.name for path in folder.iterdir()}


def test_checkpoints_and_early_stopping_can_monitor_from_the_first_epoch(tmp_path):
    """The interval is longer than an epoch, and `strict=True` does not raise."""
    monitor = UnimodalMonitor(tiny_probe_set(), every_n_train_steps=1000)
    best = ModelCheckpoint(tmp_path / "best", monitor="unimodal/rise", mode="max")
    stopping = EarlyStopping("unimodal/peak_accuracy", mode="max", patience=100, check_on_train_epoch_end=True)
    trainer = fit(tmp_path, monitor, callbacks=[best, stopping], enable_checkpointing=True, max_epochs=2, max_steps=-1)
    assert best.best_model_path
    assert {f"unimodal/{name}" for name in HEADLINE} <= set(trainer.callback_metrics)
    assert all(torch.isfinite(trainer.callback_metrics[f"unimodal/{name}"]) for name in HEADLINE)


def test_two_monitors_live_in_one_trainer_by_their_names(tmp_path):
    """Averaged and raw weights: other scalars, other folders, other states in the checkpoint."""
    ema = UnimodalMonitor(tiny_probe_set(), every_n_train_steps=5)
    raw = UnimodalMonitor(tiny_probe_set(), every_n_train_steps=5, ema=False, name="unimodal_raw")
    trainer = fit(tmp_path, ema, callbacks=[raw], max_steps=6)
    assert [monitor.history[-1].weights for monitor in (ema, raw)] == ["ema", "raw"]
    assert {"unimodal/rise", "unimodal_raw/rise"} <= set(trainer.callback_metrics)
    assert (ema.written_to.name, raw.written_to.name) == ("unimodal", "unimodal_raw")
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    states = torch.load(tmp_path / "run.ckpt", weights_only=True)["callbacks"]
    assert {ema.state_key, raw.state_key} <= set(states)


def test_a_run_resumed_goes_on_with_its_history_armed_as_it_was(tmp_path):
    """The state survives a checkpoint that `weights_only=True` loads; the alarm is raised on both sides of it."""
    options = {"every_n_train_steps": 5, "alarm": scripted_alarm(5, 10)}
    first = UnimodalMonitor(tiny_probe_set(), **options)
    fit(tmp_path, first, max_steps=6).save_checkpoint(tmp_path / "run.ckpt")
    assert torch.load(tmp_path / "run.ckpt", weights_only=True)["callbacks"]
    second = UnimodalMonitor(tiny_probe_set(), **options)
    with pytest.warns(UserWarning, match="at 2 checks in a row"):
        fit(tmp_path, second, max_steps=11, ckpt_path=tmp_path / "run.ckpt")
    assert second.history[:2] == first.history
    assert [(check.step, check.state.value) for check in read_checks(tmp_path / "unimodal")] == [
        (0, "warming up"), (5, "generalizing"), (10, "memorizing"),
    ]  # fmt: skip


def test_a_callback_used_in_a_new_trainer_starts_anew_and_in_the_same_one_goes_on(tmp_path):
    """A new Trainer counts from 0; a second fit of the same one counts on."""
    monitor = UnimodalMonitor(tiny_probe_set(), every_n_train_steps=5)

    class Fails(TinyJob):
        def on_train_batch_end(self, *args):
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path, monitor, job=Fails(), max_steps=6)
    trainer = fit(tmp_path, monitor, max_steps=6)
    assert steps_of(monitor) == [0, 5]
    assert monitor.written_to == tmp_path / "unimodal_2"
    trainer.fit_loop.epoch_loop.max_steps = 11
    trainer.fit(trainer.lightning_module, tiny_loader())
    assert steps_of(monitor) == [0, 5, 10]
    assert [check.step for check in read_checks(monitor.written_to)] == [0, 5, 10]


def test_the_network_is_let_go_after_the_fit(tmp_path):
    """The callback may live on; history and state stay."""
    job = TinyJob()
    network, monitor = weakref.ref(job.net), UnimodalMonitor(tiny_probe_set(), every_n_train_steps=5)
    fit(tmp_path, monitor, job=job, max_steps=1)
    del job
    gc.collect()
    assert network() is None
    assert steps_of(monitor) == [0]
    assert monitor.state_dict()["history"]


def test_the_alarm_stops_the_training_when_asked_to(tmp_path):
    """At the second triggered check."""
    monitor = UnimodalMonitor(
        tiny_probe_set(), every_n_train_steps=5, on_alarm="stop", alarm=scripted_alarm(10, 15), copy_audit=None
    )
    with pytest.warns(UserWarning, match="at 2 checks in a row.*The training stops"):
        trainer = fit(tmp_path, monitor)
    assert trainer.global_step == 15
    assert [check.state.value for check in monitor.history] == [
        "warming up",
        "generalizing",
        "generalizing",
        "memorizing",
    ]


def test_the_start_line_names_levels_layers_and_images(tmp_path, capsys):
    """The first line of the console."""
    fit(tmp_path, UnimodalMonitor(tiny_probe_set(), every_n_train_steps=100), max_steps=1)
    first = capsys.readouterr().out.splitlines()[0]
    for words in ("9 levels", "blocks.2 (judged)", "fitted on 100 images and scored on 200"):
        assert words in first


def test_weights_that_are_not_finite_give_no_number(tmp_path):
    """No NaN is logged: the check fails and names the layer."""

    class Diverges(TinyJob):
        def on_train_batch_start(self, batch, batch_idx):
            if self.global_step == 8:
                torch.nn.init.constant_(self.net.blocks[2][0].weight, float("nan"))

    monitor = UnimodalMonitor(tiny_probe_set(), every_n_train_steps=5, ema=False)
    with pytest.warns(UserWarning, match="are not finite"):
        trainer = fit(tmp_path, monitor, job=Diverges(), max_steps=11)
    assert steps_of(monitor) == [0, 5]
    assert torch.isfinite(trainer.callback_metrics["unimodal/rise"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "blocks.7"}, "did you mean blocks"),
        ({"net": "network"}, "net='network'"),
        ({"sigmas": [0.1, 0.2, 0.3]}, "at least 4 levels"),
        ({"sigmas": [0.3, 0.2, 0.1, 0.4]}, "ascending"),
        ({"batch_size": 0}, "batch_size"),
        ({"probe": "ridge"}, "probe"),
    ],
)
def test_wrong_arguments_raise_before_the_first_step(tmp_path, options, message):
    """No loss was computed when the error comes."""
    job = TinyJob()
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, UnimodalMonitor(tiny_probe_set(), every_n_train_steps=5, **options), job=job)
    assert job.losses == []


@pytest.mark.parametrize("options", [{"every_n_train_steps": 0}, {"on_alarm": "explode"}, {"copy_audit": 0}])
def test_arguments_that_need_no_job_are_checked_before_a_trainer_exists(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} = "):
        UnimodalMonitor(tiny_probe_set(), **options)


def test_copies_are_counted_once_when_the_alarm_is_raised(tmp_path):
    """By default, at the check that raises it; file, loggers and warning have the result."""
    logger = CSVLogger(tmp_path)
    monitor = UnimodalMonitor(tiny_probe_set(), every_n_train_steps=1, alarm=scripted_alarm(1, 2, 3))
    with pytest.warns(UserWarning, match="of 300 samples are copies"):
        trainer = fit(tmp_path, monitor, logger=logger, max_steps=3)
    logger.finalize("success")
    assert [check.audit is not None for check in monitor.history] == [False, False, True, False]
    assert read_checks(monitor.written_to) == monitor.history
    with (tmp_path / "lightning_logs/version_0/metrics.csv").open() as file:
        copies = {int(row["step"]): row["unimodal/copies_high"] for row in csv.DictReader(file) if row["unimodal/rise"]}
    assert [step for step, limit in copies.items() if limit] == [2]
    audit = monitor.history[2].audit
    assert float(copies[2]) == pytest.approx(audit.interval[1])
    assert float(trainer.callback_metrics["unimodal/copies"]) == audit.fraction


def test_fast_dev_run_makes_no_check_and_no_file(tmp_path):
    """One batch, nothing left behind."""
    monitor = UnimodalMonitor(tiny_probe_set(), every_n_train_steps=1)
    trainer = pl.Trainer(fast_dev_run=True, accelerator="cpu", callbacks=[monitor], default_root_dir=tmp_path)
    trainer.fit(TinyJob(), tiny_loader())
    assert monitor.history == []
    assert not list(tmp_path.iterdir())


OTHER_NAMESPACE = """
import sys; sys.path.insert(0, 'tests')
import tiny_job, torch
class Job(pl.LightningModule):
    def __init__(self):
        super().__init__(); self.net = tiny_job.TinyDenoiser()
    def training_step(self, batch, i):
        return (self.net(batch[0], torch.ones(len(batch[0]))) - batch[0]).square().mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)
monitor = UnimodalMonitor(tiny_job.tiny_probe_set(), every_n_train_steps=5)
trainer = pl.Trainer(max_steps=6, accelerator='cpu', logger=False, default_root_dir=sys.argv[1],
    enable_checkpointing=False, callbacks=[monitor])
trainer.fit(Job(), tiny_job.tiny_loader())
assert [check.step for check in monitor.history] == [0, 5], monitor.history
assert 'unimodal/rise' in trainer.callback_metrics
"""


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, -1], ids=["monitor first", "lightning first"])
def test_a_job_of_the_other_namespace_takes_the_same_class(tmp_path, order):
    """`import lightning.pytorch` and the same callback, imported in either order."""
    pytest.importorskip("lightning.pytorch")
    imports = ["from unimodal_monitor import UnimodalMonitor", "import lightning.pytorch as pl"][::order]
    script = "\n".join(imports) + OTHER_NAMESPACE
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=300)


TWO_RANKS = """
import sys; sys.path.insert(0, sys.argv[1])
import torch, tiny_job, pytorch_lightning as pl
from scripted import scripted_alarm
from unimodal_monitor import UnimodalMonitor
torch.set_num_threads(1)
monitor = UnimodalMonitor(tiny_job.tiny_probe_set(), every_n_train_steps=5, alarm=scripted_alarm(5, 10),
    dirpath=sys.argv[2] + '/checks')
trainer = pl.Trainer(max_steps=11, accelerator='cpu', devices=2, logger=False, callbacks=[monitor],
    strategy='ddp_find_unused_parameters_true', enable_checkpointing=False)
trainer.fit(tiny_job.TinyJob(), tiny_job.tiny_loader())
found = [(check.verdict.rise, check.state.value, check.audit and check.audit.fraction) for check in monitor.history]
assert len(found) == 3 and abs(trainer.callback_metrics['unimodal/rise'] - found[-1][0]) < 1e-6
assert 'unimodal/copies' in trainer.callback_metrics
open(f'{sys.argv[2]}/rank{trainer.global_rank}', 'w').write(repr(found))
"""


@pytest.mark.slow
def test_two_ranks_reach_the_same_verdicts_and_publish_them(tmp_path):
    """DDP over gloo, by Lightning's own launcher; one rank writes the files, all have the audit's result."""
    (tmp_path / "job.py").write_text(TWO_RANKS)
    command = [sys.executable, str(tmp_path / "job.py"), str(Path(__file__).parent), str(tmp_path)]
    subprocess.run(command, check=True, timeout=300, cwd=tmp_path)
    assert (tmp_path / "rank0").read_text() == (tmp_path / "rank1").read_text()
    assert [check.state for check in read_checks(tmp_path / "checks")][-1] is AlarmState.MEMORIZING
