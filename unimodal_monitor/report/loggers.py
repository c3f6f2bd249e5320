"""Scalars and figures into whatever logger the training has: W&B, TensorBoard, CSV, or others of their kind."""

import io
from collections.abc import Sequence
from typing import Any

from unimodal_monitor.check import Check
from unimodal_monitor.glance import Glance
from unimodal_monitor.report.plot import plot_curve, plot_history
from unimodal_monitor.report.plot_evidence import plot_evidence
from unimodal_monitor.report.scalars import cost, scalars


class LoggerReporter:
    """Logs at the step of the check, whatever the training's own logging interval is.

    Args:
        logger: with `log_metrics(metrics, step=)`; one with `log_image`, or with an `experiment` that has
            `add_figure`, is given the figures as well.
    """

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def report(self, history: Sequence[Check]) -> None:
        """Log the last check."""
        check = history[-1]
        self.logger.log_metrics(scalars(check), step=check.step)
        if _takes_figures(self.logger):
            curve = plot_curve(check, earlier=history[:-1])
            _log_figure(self.logger, "unimodal/curve", curve, check.step)
            _log_figure(self.logger, "unimodal/history", plot_history(history), check.step)
            _log_figure(self.logger, "unimodal/evidence", plot_evidence(history), check.step)

    def glance(self, glance: Glance) -> None:
        """Log that the alarm is as it was, and the cost."""
        self.logger.log_metrics(cost(glance), step=glance.step)


def _takes_figures(logger: Any) -> bool:
    return hasattr(logger, "log_image") or hasattr(getattr(logger, "experiment", None), "add_figure")


def _log_figure(logger: Any, name: str, figure: Any, step: int) -> None:
    if hasattr(logger, "log_image"):
        logger.log_image(key=name, images=[_as_image(figure)], step=step)
    else:
        logger.experiment.add_figure(name, figure, global_step=step, close=False)


def _as_image(figure: Any) -> Any:
    """A PIL image: loggers take these, and not always a figure."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return Image.open(buffer)
