"""All reporters of a run, each of which may fail by itself, and the run's folder."""

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from unimodal_monitor.check import Check
from unimodal_monitor.report.base import Figures, Reporter
from unimodal_monitor.report.console import ConsoleReporter, warn
from unimodal_monitor.report.figures import FigureReporter
from unimodal_monitor.report.jsonl import JsonlReporter, unused_folder


class Reporters:
    """Reports checks, on one rank only; nothing that fails here reaches the training.

    Args:
        reporters: Where checks are shown; None for the console.
        dirpath: Folder for `checks.jsonl` and the figures; None writes no files.
        name: First word of each line.
        is_silent: On all ranks but one.
    """

    def __init__(
        self, reporters: Sequence[Reporter] | None, *, dirpath: Path | str | None, name: str, is_silent: bool = False
    ) -> None:
        self.each: list[Reporter] = [ConsoleReporter(name=name)] if reporters is None else list(reporters)
        self.dirpath = None if dirpath is None else Path(dirpath).absolute()
        self.name, self.is_silent = name, is_silent
        self.written_to: Path | None = None
        self.own_folder: str | None = None  # of the run that goes on

    def report(self, history: Sequence[Check], *, training: Tensor) -> None:
        """Show the last check; the folder is claimed at the first one."""
        if self.is_silent:
            return
        step, figures = history[-1].step, Figures(history, training=training)
        self.softly("the report", self._claim_folder, step=step)
        for reporter in self.each:
            self.softly(type(reporter).__name__, partial(reporter.report, history, figures), step=step)

    def say(self, line: str | None) -> None:
        """Print a line, if there is one, where the checks are printed."""
        for reporter in self.each:
            if isinstance(reporter, ConsoleReporter) and line and not self.is_silent:
                reporter.write(f"{self.name}  {line}")

    def warn(self, message: str) -> None:
        """Warn once, not on every rank."""
        if not self.is_silent:
            warn(f"{self.name}: {message}")

    def softly(self, what: str, work: Callable[[], object], *, step: int) -> object:
        """The result of the work; None and a warning if it fails."""
        try:
            return work()
        except Exception:
            self.warn(f"{what} failed at step {step}\n{traceback.format_exc()}")
            return None

    def _claim_folder(self) -> None:
        if self.dirpath is not None and self.written_to is None:
            self.written_to = unused_folder(self.dirpath, own=self.own_folder)
            self.each += [JsonlReporter(self.written_to), FigureReporter(self.written_to)]
