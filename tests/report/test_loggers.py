"""Scalars and figures reach loggers of every kind."""

import csv
from pathlib import Path
from unittest.mock import MagicMock, Mock

import pytest
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from simulated_checks import RUN

from unimodal_monitor.report.loggers import LoggerReporter
from unimodal_monitor.report.scalars import scalars
from unimodal_monitor.report.style import new_figure

FIGURES = {"curve": new_figure(4, 3), "history": new_figure(5, 3)}


def test_a_logger_of_images_gets_scalars_once_and_figures_as_pictures():
    """Such as that of W&B."""
    logger = Mock(spec=["log_metrics", "log_image"])
    LoggerReporter(logger, prefix="raw").report(RUN, FIGURES)
    logger.log_metrics.assert_called_once_with(scalars(RUN[-1], prefix="raw"), step=207)
    calls = [call.kwargs for call in logger.log_image.call_args_list]
    assert [(call["step"], call["key"]) for call in calls] == [(207, "raw/curve"), (207, "raw/history")]
    assert [picture.height for call in calls for picture in call["images"]] == [330, 330]


def test_tensorboard_gets_scalars_and_figures(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path)
    LoggerReporter(logger).report(RUN, FIGURES)
    logger.experiment.flush()
    events = accumulator.EventAccumulator(logger.log_dir).Reload()
    assert [event.step for event in events.Scalars("unimodal/rise")] == [207]
    assert [event.step for name in FIGURES for event in events.Images(f"unimodal/{name}")] == [207, 207]


def test_a_csv_logger_gets_scalars_at_the_step_of_the_check_and_no_figure_is_drawn(tmp_path):
    """Step 207 is no multiple of its logging interval, 50."""
    logger, figures = CSVLogger(tmp_path), MagicMock()
    LoggerReporter(logger).report(RUN, figures)
    logger.save()
    assert not figures.mock_calls
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row.pop("step") == "207"
    assert {key: float(value) for key, value in row.items()} == scalars(RUN[-1])
