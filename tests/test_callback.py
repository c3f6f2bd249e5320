"""UnimodalMonitor in real Trainers."""

import csv
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from simulated import simulated_outcomes
from tiny_job import TinyJob, tiny_loader, tiny_probe_set, tiny_trainer

from unimodal_monitor import AlarmState, RidgeProbe, UnimodalMonitor, read_checks
from unimodal_monitor import monitor as monitor_module
from unimodal_monitor import survey as survey_module
from unimodal_monitor.measure import Measurement
from unimodal_monitor.report.figures import FigureReporter

HEADLINE = ("rise", "rise_low", "rise_high", "peak_sigma", "peak_accuracy", "peak_score", "shape", "alarm", "seconds")


@pytest.fixture
def without_figures(monkeypatch):
    """Figures take most of a tiny check's time; other tests draw them."""
    monkeypatch.setattr(FigureReporter, "report", lambda self, history: None)


@pytest.fixture
def scripted(monkeypatch, without_figures):
    """Gives the checks curves with the rises of a list, whatever the network does."""

    def script(*rises):
        left = iter(rises)

        def measured(forwards, probe_set, probe, **_):
            mean = [0.3, 0.3, 0.3, 0.3, 0.3 + next(left), 0.2, 0.1, 0.1, 0.0]
            outcomes = simulated_outcomes(mean, num_images=len(probe_set.heldout))
            return Measurement(
                dict.fromkeys(forwards.captured.layers, outcomes), dict.fromkeys(forwards.captured.layers, outcomes)
            )

        monkeypatch.setattr(survey_module, "measure", measured)

    return script


def fit(folder, monitor, *, job=None, ckpt_path=None, **options):
    job = TinyJob() if job is None else job
    trainer = tiny_trainer(folder, callbacks=[monitor, *options.pop("callbacks", [])], **options)
    trainer.fit(job, tiny_loader(), ckpt_path=ckpt_path)
    return trainer


def test_checks_are_made_at_the_start_and_at_every_multiple(tmp_path):
    """Step 0, then every 20 optimizer steps."""
    monitor = UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=20)
    fit(tmp_path, monitor)
    assert [check.step for check in monitor.history] == [0, 20, 40]
    assert [check.weights for check in monitor.history] == ["raw", "ema", "ema"]


def test_accumulated_micro_batches_make_one_check_for_a_step(tmp_path):
    """The hook fires for each micro-batch with the same global step."""
    monitor = UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=5)
    fit(tmp_path, monitor, accumulate_grad_batches=2, max_steps=12)
    assert [check.step for check in monitor.history] == [0, 5, 10]


def test_scalars_reach_the_logger_between_multiples_of_its_interval(tmp_path):
    """The check at step 7 is logged although the trainer logs every 50 steps."""
    monitor = UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=7)
    logger = CSVLogger(tmp_path)
    fit(tmp_path, monitor, logger=logger, log_every_n_steps=50, max_steps=8)
    logger.finalize("success")
    rows = list(csv.DictReader((tmp_path / "lightning_logs/version_0/metrics.csv").open()))
    steps = [int(row["step"]) for row in rows if row["unimodal/rise"]]
    assert steps == [0, 7]
    assert float(rows[-1]["unimodal/rise"]) == pytest.approx(monitor.history[-1].verdict.rise)


def test_files_lie_beside_the_logs_and_load_as_the_same_objects(tmp_path):
    """checks.jsonl gives back the history; both figures are there."""
    monitor = UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=5)
    fit(tmp_path, monitor, logger=CSVLogger(tmp_path), max_steps=6)
    folder = tmp_path / "lightning_logs/version_0/unimodal"
    assert read_checks(folder) == monitor.history
    assert {"curve.png", "history.png"} <= {path.name for path in folder.iterdir()}


def test_a_new_run_does_not_overwrite_the_checks_of_an_older_one(tmp_path):
    """Without a logger both runs have one folder; the second writes beside the first."""
    for _ in range(2):
        fit(tmp_path, UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=5), max_steps=1)
    assert (tmp_path / "unimodal/checks.jsonl").exists()
    assert (tmp_path / "unimodal_2/checks.jsonl").exists()


def test_checkpoints_and_early_stopping_can_monitor_from_the_first_epoch(tmp_path):
    """The interval is longer than an epoch, and `strict=True` does not raise."""
    monitor = UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=1000)
    best = ModelCheckpoint(tmp_path / "best", monitor="unimodal/rise", mode="max")
    stopping = EarlyStopping("unimodal/peak_accuracy", mode="max", patience=100, check_on_train_epoch_end=True)
    trainer = fit(tmp_path, monitor, callbacks=[best, stopping], enable_checkpointing=True, max_epochs=2, max_steps=-1)
    assert best.best_model_path
    assert {f"unimodal/{name}" for name in HEADLINE} <= set(trainer.callback_metrics)
    assert all(torch.isfinite(trainer.callback_metrics[f"unimodal/{name}"]) for name in HEADLINE)


def test_a_run_resumed_goes_on_with_its_history_armed_as_it_was(tmp_path, scripted):
    """The state survives a checkpoint that `weights_only=True` loads."""
    scripted(0.9, 0.5, 0.49, 0.3)
    first = UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=5)
    trainer = fit(tmp_path, first, max_steps=6)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    assert torch.load(tmp_path / "run.ckpt", weights_only=True)["callbacks"]
    second = UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=5)
    trainer = fit(tmp_path, second, max_steps=11, ckpt_path=tmp_path / "run.ckpt")
    assert [check.step for check in second.history] == [0, 5, 10]
    assert second.history[:2] == first.history
    assert second.history[-1].state is AlarmState.ARMED
    reference = second._monitor.alarm.rules[0].reference
    assert reference.step == 5
    assert reference.mean == pytest.approx(0.5, abs=0.05)
    assert [check.step for check in read_checks(tmp_path / "unimodal")] == [0, 5, 10]


def test_a_callback_used_again_starts_anew(tmp_path):
    """Neither the steps nor the history of the first fit, itself resumed, are carried into the second."""
    fit(tmp_path, UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=5), max_steps=6).save_checkpoint(
        tmp_path / "run.ckpt"
    )
    monitor = UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=5)
    fit(tmp_path, monitor, max_steps=11, ckpt_path=tmp_path / "run.ckpt")
    assert [check.step for check in monitor.history] == [0, 5, 10]
    fit(tmp_path, monitor, max_steps=6)
    assert [check.step for check in monitor.history] == [0, 5]


def test_a_history_of_another_probe_set_is_refused(tmp_path):
    """Its checks would not compare; the error says what differs."""
    trainer = fit(tmp_path, UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=5), max_steps=1)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    other = UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=5, layers=["blocks.0"])
    with pytest.raises(ValueError, match="this monitor measures"):
        fit(tmp_path, other, max_steps=2, ckpt_path=tmp_path / "run.ckpt")


def test_the_alarm_stops_the_training_when_asked_to(tmp_path, scripted):
    """Not armed by the untrained network, then armed, lost twice, stopped at the second loss."""
    scripted(0.9, 0.5, 0.001, 0.001, 0.001)
    monitor = UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=5, on_alarm="stop")
    with pytest.warns(UserWarning, match="at 2 checks in a row.*the training stops"):
        trainer = fit(tmp_path, monitor)
    assert trainer.global_step == 15
    assert [check.state.value for check in monitor.history] == ["warming up", "armed", "fading", "raised"]


def test_the_alarm_warns_once_by_default_and_training_goes_on(tmp_path, scripted):
    """A raised alarm that stays raised is told once."""
    scripted(*[0.5, 0.5] + 4 * [0.001])
    monitor = UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=10)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer = fit(tmp_path, monitor)
    assert trainer.global_step == 50
    assert sum("checks in a row" in str(warning.message) for warning in told) == 1


def test_the_alarm_calls_a_function_with_the_check(tmp_path, scripted):
    """Once, with the check that raised it."""
    scripted(0.5, 0.5, 0.001, 0.001, 0.001, 0.001)
    calls = []
    fit(tmp_path, UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=10, on_alarm=calls.append))
    assert [check.step for check in calls] == [30]


def test_a_function_that_fails_on_the_alarm_does_not_end_the_training(tmp_path, scripted):
    """It is told with its cause."""

    def explode(check):
        raise RuntimeError("mail server down")

    scripted(0.5, 0.5, 0.001, 0.001, 0.001, 0.001)
    with pytest.warns(UserWarning, match="mail server down"):
        trainer = fit(tmp_path, UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=10, on_alarm=explode))
    assert trainer.global_step == 50


def test_what_a_check_measures_is_said_at_the_start(tmp_path, capsys):
    """Levels, layers, and how many images the probe has."""
    fit(tmp_path, UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=100), max_steps=1)
    first = capsys.readouterr().out.splitlines()[0]
    assert "9 levels" in first
    assert "blocks.2 (judged)" in first
    assert "fitted on 100 images and scored on 200" in first


def test_a_failing_check_is_told_and_after_three_no_more_are_made(tmp_path):
    """Training goes on to its end."""

    class Broken(RidgeProbe):
        calls = 0

        def fit(self, collected):
            Broken.calls += 1
            raise RuntimeError("broken probe")

    monitor = UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=5, probe=Broken())
    with pytest.warns(UserWarning, match="no more are made") as told:
        trainer = fit(tmp_path, monitor)
    assert trainer.global_step == 50
    assert Broken.calls == 3
    assert any("broken probe" in str(warning.message) for warning in told)
    assert monitor.history == []


def test_weights_that_are_not_finite_give_no_number(tmp_path):
    """No NaN is logged: the check fails and says which layer."""

    class Diverges(TinyJob):
        def on_train_batch_start(self, batch, batch_idx):
            if self.global_step == 8:
                torch.nn.init.constant_(self.net.blocks[2][0].weight, float("nan"))

    monitor = UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=5, ema=False)
    with pytest.warns(UserWarning, match="are not finite"):
        trainer = fit(tmp_path, monitor, job=Diverges(), max_steps=11)
    assert [check.step for check in monitor.history] == [0, 5]
    assert torch.isfinite(trainer.callback_metrics["unimodal/rise"])


def test_a_logger_that_fails_does_not_end_the_training(tmp_path):
    """It is told; files are still written."""

    class Offline(CSVLogger):
        def log_metrics(self, metrics, step=None):
            raise ConnectionError("no network")

    monitor = UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=5)
    with pytest.warns(UserWarning, match="no network"):
        fit(tmp_path, monitor, logger=Offline(tmp_path), max_steps=6)
    assert len(monitor.history) == 2


def test_figures_count_as_time_of_the_checks(tmp_path, monkeypatch):
    """The training waits for them as it waits for a check."""
    monkeypatch.setattr(FigureReporter, "report", lambda self, history: time.sleep(0.2))
    monitor = UnimodalMonitor(tiny_probe_set(), every_n_steps=5)
    fit(tmp_path, monitor, max_steps=1)
    budget = monitor._monitor._budget
    assert budget._last["report"] >= 0.2
    assert budget._spent == budget._last["check"] + budget._last["report"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["blocks.7"]}, "did you mean blocks"),
        ({"net": "network"}, "net='network'"),
        ({"sigmas": [0.1, 0.2, 0.3]}, "a curve needs 4"),
        ({"sigmas": [0.3, 0.2, 0.1, 0.4]}, "ascending"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_wrong_arguments_are_told_before_the_first_step(tmp_path, options, message):
    """No loss was computed when the error comes."""
    job = TinyJob()
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=5, **options), job=job)
    assert job.losses == []


RISES = (0.5, 0.5, 0.001, 0.001, 0.001)
"""Of a scripted run whose alarm is raised at its fourth check, and stays raised."""


def test_copies_are_counted_once_when_the_alarm_is_raised(tmp_path, scripted):
    """By default, at the check that raises it; the file, the loggers and the warning tell the result."""
    scripted(*RISES)
    logger, monitor = CSVLogger(tmp_path), UnimodalMonitor(tiny_probe_set(), every_n_steps=1)
    with pytest.warns(UserWarning, match="of 300 samples are copies"):
        trainer = fit(tmp_path, monitor, logger=logger, max_steps=4)
    logger.finalize("success")
    assert [check.audit is not None for check in monitor.history] == [False, False, False, True, False]
    assert read_checks(monitor.written_to) == monitor.history
    with (tmp_path / "lightning_logs/version_0/metrics.csv").open() as file:
        copies = {int(row["step"]): row["unimodal/copies_high"] for row in csv.DictReader(file) if row["unimodal/rise"]}
    assert [step for step, limit in copies.items() if limit] == [3]
    assert float(copies[3]) == pytest.approx(monitor.history[3].audit.interval[1])
    assert float(trainer.callback_metrics["unimodal/copies"]) == monitor.history[3].audit.fraction


@pytest.mark.parametrize(
    ("audit", "expected"),
    [(None, []), (1, [0, 1, 2, 3, 4]), (2, [1, 3])],
    ids=["never", "at every check", "at every second one"],
)
def test_copies_are_counted_at_the_checks_that_were_asked_for(tmp_path, scripted, audit, expected):
    """Whatever the alarm says."""
    scripted(*RISES)
    monitor = UnimodalMonitor(tiny_probe_set(), every_n_steps=1, audit=audit, audit_seconds=0.0)
    fit(tmp_path, monitor, max_steps=4)
    assert monitor.history[-1].state is AlarmState.RAISED
    assert [check.step for check in monitor.history if check.audit is not None] == expected


def test_the_seconds_of_an_audit_bound_its_samples(tmp_path, without_figures):
    """None left: a single batch is drawn, of 64 in place of 300 samples."""
    monitor = UnimodalMonitor(tiny_probe_set(), every_n_steps=100, audit=1, audit_seconds=0.0)
    fit(tmp_path, monitor, max_steps=1)
    assert [check.audit.num_samples for check in monitor.history] == [64]


def test_an_audit_that_fails_does_not_end_the_training(tmp_path, monkeypatch, without_figures):
    """It is told; the check stands without it."""

    def explode(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(monitor_module, "audit_copies", explode)
    monitor = UnimodalMonitor(tiny_probe_set(), every_n_steps=2, audit=1)
    with pytest.warns(UserWarning, match="the copy audit at step 2 failed") as told:
        trainer = fit(tmp_path, monitor, max_steps=3)
    assert trainer.global_step == 3
    assert sum("out of memory" in str(warning.message) for warning in told) == 2
    assert [(check.step, check.audit) for check in read_checks(tmp_path / "unimodal")] == [(0, None), (2, None)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"audit": "always"}, "audit = 'always'; it is 'confirm', a number of checks from 1, or None"),
        ({"audit": 0}, "audit = 0"),
        ({"audit": -2}, "audit = -2"),
        ({"audit": 1.5}, "audit = 1.5"),
        ({"audit": True}, "audit = True"),
        ({"audit_seconds": -1.0}, "audit_seconds = -1.0"),
        ({"audit_seconds": float("nan")}, "audit_seconds = nan"),
    ],
)
def test_an_audit_that_makes_no_sense_is_refused_at_once(options, message):
    """Before a Trainer exists; a limit that is not a number would never end an audit."""
    with pytest.raises(ValueError, match=message):
        UnimodalMonitor(tiny_probe_set(), **options)


@pytest.mark.parametrize("options", [{"every_n_steps": 0}, {"every_n_steps": 5, "on_alarm": "explode"}])
def test_arguments_that_need_no_job_are_checked_at_once(options):
    """Before a Trainer exists."""
    with pytest.raises(ValueError, match=str(next(reversed(options.values())))):
        UnimodalMonitor(tiny_probe_set(), **options)


def test_fast_dev_run_makes_no_check_and_no_file(tmp_path):
    """One batch, nothing left behind."""
    monitor = UnimodalMonitor(tiny_probe_set(), full_every=1, every_n_steps=1)
    trainer = pl.Trainer(fast_dev_run=True, accelerator="cpu", callbacks=[monitor], default_root_dir=tmp_path)
    trainer.fit(TinyJob(), tiny_loader())
    assert monitor.history == []
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("order", ["monitor first", "lightning first"])
def test_a_job_of_the_other_namespace_takes_the_same_class(tmp_path, order):
    """`import lightning.pytorch` and the same callback, imported in either order."""
    pytest.importorskip("lightning.pytorch")
    imports = ["from unimodal_monitor import UnimodalMonitor", "import lightning.pytorch as pl"]
    script = "\n".join(
        [
            *(imports if order == "monitor first" else imports[::-1]),
            "import sys; sys.path.insert(0, 'tests')",
            "import tiny_job, torch",
            "class Job(pl.LightningModule):",
            "    def __init__(self):",
            "        super().__init__(); self.net = tiny_job.TinyDenoiser()",
            "    def training_step(self, batch, i):",
            "        return (self.net(batch[0], torch.ones(len(batch[0]))) - batch[0]).square().mean()",
            "    def configure_optimizers(self):",
            "        return torch.optim.SGD(self.parameters(), lr=1e-3)",
            "monitor = UnimodalMonitor(tiny_job.tiny_probe_set(), full_every=1, every_n_steps=5)",
            f"trainer = pl.Trainer(max_steps=6, accelerator='cpu', logger=False, default_root_dir={str(tmp_path)!r},",
            "    enable_checkpointing=False, callbacks=[monitor])",
            "trainer.fit(Job(), tiny_job.tiny_loader())",
            "assert [check.step for check in monitor.history] == [0, 5], monitor.history",
            "assert 'unimodal/rise' in trainer.callback_metrics",
        ]
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


@pytest.mark.slow
def test_two_ranks_reach_the_same_verdicts_and_publish_them(tmp_path):
    """DDP over gloo, by Lightning's own launcher; one rank writes the files."""
    script = tmp_path / "job.py"
    script.write_text(
        "\n".join(
            [
                "import sys; sys.path.insert(0, sys.argv[1])",
                "import torch, tiny_job, pytorch_lightning as pl",
                "from unimodal_monitor import UnimodalMonitor",
                "torch.set_num_threads(1)",
                "monitor = UnimodalMonitor(tiny_job.tiny_probe_set(), full_every=1, every_n_steps=5,",
                "    folder=sys.argv[2] + '/checks')",
                "trainer = pl.Trainer(max_steps=11, accelerator='cpu', devices=2, logger=False, callbacks=[monitor],",
                "    strategy='ddp_find_unused_parameters_true', enable_checkpointing=False)",
                "trainer.fit(tiny_job.TinyJob(), tiny_job.tiny_loader())",
                "rises = [check.verdict.rise for check in monitor.history]",
                "assert len(rises) == 3 and abs(trainer.callback_metrics['unimodal/rise'] - rises[-1]) < 1e-6",
                "open(f'{sys.argv[2]}/rank{trainer.global_rank}', 'w').write(repr(rises))",
            ]
        )
    )
    tests = Path(__file__).parent
    subprocess.run([sys.executable, str(script), str(tests), str(tmp_path)], check=True, timeout=300, cwd=tmp_path)
    assert (tmp_path / "rank0").read_text() == (tmp_path / "rank1").read_text()
    assert len(read_checks(tmp_path / "checks")) == 3
