"""Where a check is shown."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from simulated import FALLING, simulated_check, simulated_testimony

from unimodal_monitor import AlarmState, read_checks
from unimodal_monitor.copies.audit import Audit, clopper_pearson
from unimodal_monitor.report.console import ConsoleReporter, line
from unimodal_monitor.report.figures import FigureReporter
from unimodal_monitor.report.jsonl import JsonlReporter
from unimodal_monitor.report.loggers import LoggerReporter
from unimodal_monitor.report.scalars import headline, scalars

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


AUDIT = Audit(300, 3, 3, clopper_pearson(3, 300), (), 12.0, 300 * 35)
HEARD = replace(HISTORY[1], testimony=simulated_testimony(gap=0.3, icr=0.4, auc=0.6), audit=AUDIT)
WITNESSES = {
    "normalized_gap": 0.3,
    "icr": 0.4,
    "spikiness_auc": 0.6,
    "copies": 0.01,
    "copies_low": AUDIT.interval[0],
    "copies_high": AUDIT.interval[1],
}


def test_each_witness_has_one_number_in_the_headline():
    """The largest normalized gap, the cleanest ICR, the highest AUC, and the share of copies."""
    values = headline(HEARD)
    expected = {f"unimodal/{name}": value for name, value in WITNESSES.items()}
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    assert set(values) - set(headline(HISTORY[1])) == set(expected)


def test_witnesses_are_told_level_by_level():
    """Under the names of their quantities; the gap in squared data units."""
    values, said = scalars(HEARD), HEARD.testimony
    for name, found in (
        ("gap", said["gap"]["gap_K"]),
        ("icr", said["contamination"]["icr_K"]),
        ("spikiness_auc", said["spikiness"]["auc_K"]),
    ):
        levels = [values[f"unimodal/{name}/sigma_{sigma:.3g}"] for sigma in HEARD.curve.sigmas]
        assert levels == found
    assert len(values) == len(headline(HEARD)) + 5 * 9
    assert all(math.isfinite(value) for value in values.values())


@pytest.mark.parametrize(
    ("witness", "lost"), [("gap", "normalized_gap"), ("contamination", "icr"), ("spikiness", "spikiness_auc")]
)
def test_a_witness_that_was_not_heard_has_no_number(witness, lost):
    """And takes none of another along."""
    check = replace(HEARD, testimony={**HEARD.testimony, witness: None})
    assert set(headline(HEARD)) - set(headline(check)) == {f"unimodal/{lost}"}
    assert len(scalars(HEARD)) - len(scalars(check)) == 1 + 9


@pytest.mark.parametrize("normalized", [None, {"levels_L": [], "value_L": [], "low_L": [], "high_L": []}])
def test_a_gap_that_cannot_be_normalized_is_told_by_level_alone(normalized):
    """No memorizer, or one that leads at no level."""
    testimony = {**HEARD.testimony, "gap": {**HEARD.testimony["gap"], "normalized": normalized}}
    values = scalars(replace(HEARD, testimony=testimony))
    assert "unimodal/normalized_gap" not in values
    assert "unimodal/gap/sigma_0.14" in values


def test_without_labels_there_is_no_accuracy_to_tell():
    """Neither its peak nor its levels; the score is there."""
    unlabelled = replace(HEARD, curves=(replace(HEARD.curve, accuracy=None),))
    assert {name for name in scalars(HEARD) if "accuracy" in name} == set(scalars(HEARD)) - set(scalars(unlabelled))
    assert "unimodal/score/sigma_0.14" in scalars(unlabelled)


def test_what_witnesses_said_comes_back_from_the_file(tmp_path):
    """With the audit."""
    JsonlReporter(tmp_path).report([HEARD])
    (check,) = read_checks(tmp_path)
    assert check == HEARD
    assert check.audit == AUDIT


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


def test_the_console_tells_the_copies_where_they_were_counted():
    """Between the check and its evidence."""
    lines = []
    ConsoleReporter(lines.append).report([*HISTORY[:-1], replace(HISTORY[-1], audit=AUDIT)])
    assert lines[1] == f"unimodal  {AUDIT.sentence()}"
    assert len(lines) == 3


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
