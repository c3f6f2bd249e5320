"""Where a check is shown."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from simulated import FALLING, simulated_check

from unimodal_monitor import AlarmState, read_checks
from unimodal_monitor.reporters.console import ConsoleReporter, line
from unimodal_monitor.reporters.figures import FigureReporter
from unimodal_monitor.reporters.jsonl import JsonlReporter
from unimodal_monitor.reporters.loggers import LoggerReporter
from unimodal_monitor.reporters.scalars import headline, scalars

HISTORY = [
    simulated_check(0, FALLING, state=AlarmState.WARMING_UP),
    simulated_check(100),
    simulated_check(207, FALLING, state=AlarmState.RAISED),
]


def test_all_scalars_are_finite_and_name_the_levels():
    """The headline is part of them."""
    values = scalars(HISTORY[-1])
    assert all(math.isfinite(value) for value in values.values())
    assert headline(HISTORY[-1]).items() <= values.items()
    assert values["unimodal/alarm"] == 3.0
    assert "unimodal/accuracy/sigma_0.14" in values


def test_checks_come_back_from_the_file_equal(tmp_path):
    """From the folder or from the file itself."""
    JsonlReporter(tmp_path / "new").report(HISTORY)
    assert read_checks(tmp_path / "new") == HISTORY
    assert read_checks(tmp_path / "new/checks.jsonl") == HISTORY


def test_a_resumed_run_drops_what_came_after(tmp_path):
    """The file is the history, not a pile of lines."""
    JsonlReporter(tmp_path).report(HISTORY)
    JsonlReporter(tmp_path).report(HISTORY[:2])
    assert [check.step for check in read_checks(tmp_path)] == [0, 100]


def test_every_line_is_plain_json_without_nan(tmp_path):
    """Readable by anything."""
    JsonlReporter(tmp_path).report(HISTORY)
    for record in (tmp_path / "checks.jsonl").read_text().splitlines():
        json.loads(record, parse_constant=lambda name: pytest.fail(name))


def test_outcomes_are_kept_image_by_image(tmp_path):
    """Correctness exactly, scores in half precision."""
    JsonlReporter(tmp_path).report(HISTORY)
    with np.load(tmp_path / "outcomes/step_000000207.npz") as arrays:
        kept = HISTORY[-1].outcomes["up_blocks.1"]
        assert np.array_equal(arrays["up_blocks.1/correct"], kept.correct_KRM.numpy())
        np.testing.assert_allclose(arrays["up_blocks.1/score"], kept.score_KRM.numpy(), atol=1e-3)


def test_the_console_has_a_line_for_a_check_and_one_for_a_change_of_state():
    """The evidence is printed when the alarm is raised."""
    lines = []
    ConsoleReporter(lines.append).report(HISTORY)
    assert lines[0] == line(HISTORY[-1])
    assert "207" in lines[0]
    assert "ALARM" in lines[0]
    assert "evidence of step 207" in lines[1]


def test_figures_are_written(tmp_path):
    """For one check and for several."""
    for history in (HISTORY[:1], HISTORY):
        FigureReporter(tmp_path).report(history)
        assert (tmp_path / "curve.png").stat().st_size > 10_000
        assert (tmp_path / "history.png").stat().st_size > 10_000


def test_a_logger_of_images_gets_pictures():
    """As W&B's logger takes them."""
    logged = {}

    class Logger:
        def log_metrics(self, metrics, step):
            logged[step] = metrics

        def log_image(self, key, images, step):
            logged[key] = images[0].size, step

    LoggerReporter(Logger()).report(HISTORY)
    assert logged[207]["unimodal/alarm"] == 3.0
    assert logged["unimodal/history"][1] == 207
    assert min(logged["unimodal/curve"][0]) > 300


def test_tensorboard_gets_scalars_and_figures(tmp_path):
    """At the step of the check."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path)
    LoggerReporter(logger).report(HISTORY)
    logger.experiment.flush()
    events = accumulator.EventAccumulator(logger.log_dir)
    events.Reload()
    assert [event.step for event in events.Scalars("unimodal/rise")] == [207]
    assert [event.step for event in events.Images("unimodal/history")] == [207]


def test_a_check_with_nan_is_not_written_and_the_file_stays(tmp_path):
    """The lines written before are still whole."""
    JsonlReporter(tmp_path).report(HISTORY[:2])
    with pytest.raises(ValueError, match="Out of range float"):
        JsonlReporter(tmp_path).report([*HISTORY[:2], replace(HISTORY[2], seconds=math.nan)])
    assert read_checks(tmp_path) == HISTORY[:2]


FIGURES = {"curve": 2, "history": 4, "evidence": 1}
"""Figures by name, with the number of their axes."""


def test_a_logger_of_figures_gets_figures():
    """Any `experiment` with `add_figure`, without the figure being closed, which pyplot does not know."""
    logged = {}

    class Experiment:
        def add_figure(self, name, figure, *, global_step, close):
            logged[name] = len(figure.axes), global_step, close

    class Logger:
        experiment = Experiment()

        def log_metrics(self, metrics, step):
            pass

    LoggerReporter(Logger()).report(HISTORY)
    assert logged == {f"unimodal/{name}": (axes, 207, False) for name, axes in FIGURES.items()}


def test_a_csv_logger_gets_the_scalars_at_the_step_of_the_check(tmp_path):
    """Step 207 is no multiple of its logging interval, 50."""
    logger = CSVLogger(tmp_path)
    LoggerReporter(logger).report(HISTORY)
    logger.save()
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["step"] == "207"
    assert float(row["unimodal/rise"]) == HISTORY[-1].verdict.rise


def test_a_logger_that_fails_is_not_hidden():
    """The reporter raises; whether the training goes on is the callback's business."""

    class Logger:
        def log_metrics(self, metrics, step):
            raise ConnectionError("offline")

    with pytest.raises(ConnectionError, match="offline"):
        LoggerReporter(Logger()).report(HISTORY)
