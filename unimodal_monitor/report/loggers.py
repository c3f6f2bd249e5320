"""Scalars and figures into whatever logger the training has: W&B, TensorBoard, CSV, or others of their kind."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from unimodal_monitor.check import Check
from unimodal_monitor.report.scalars import scalars


class LoggerReporter:
    """Logs at the step of the check, whatever the training's own logging interval is.

    Args:
        logger: Object with `log_metrics(metrics, step=)`. Its `log_image`, or else the `add_figure` of its
            `experiment`, gets the figures.
        prefix: First part of all keys.
    """

    def __init__(self, logger: Any, *, prefix: str = "unimodal") -> None:
        self.logger = logger
        self.prefix = prefix

    def report(self, history: Sequence[Check], figures: Mapping[str, Any]) -> None:
        """Log the last check."""
        check, logger = history[-1], self.logger
        logger.log_metrics(scalars(check, prefix=self.prefix), step=check.step)
        if hasattr(logger, "log_image"):
            for name, figure in figures.items():
                logger.log_image(key=f"{self.prefix}/{name}", images=[_as_image(figure)], step=check.step)
        elif hasattr(getattr(logger, "experiment", None), "add_figure"):
            for name, figure in figures.items():
                key = f"{self.prefix}/{name}"
                logger.experiment.add_figure(key, figure, global_step=check.step, close=False)


def _as_image(figure: Any) -> Any:
    """A PIL image: loggers of images take these, and not always a figure."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return Image.open(buffer)
