"""One line for each check, and a progress bar while a check takes long."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from unimodal_monitor.alarm.alarm import AlarmState
from unimodal_monitor.check import Check
from unimodal_monitor.glance import Glance
from unimodal_monitor.stats.estimate import Curve

PATIENCE_S = 1.0
MARKS = {
    AlarmState.WARMING_UP: " ",
    AlarmState.NEVER_UNIMODAL: "never",
    AlarmState.ARMED: "armed",
    AlarmState.FADING: "fading",
    AlarmState.RAISED: "ALARM",
}


def line(check: Check) -> str:
    """A check in one line: step, curve from low noise to high, rise with its limits, verdict, alarm, seconds."""
    verdict, curve = check.verdict, check.curve
    return (
        f"unimodal  step {check.step:>7}  {curve.sparkline()}  "
        f"{_what(curve)}  "
        f"rise {100 * verdict.rise / (abs(verdict.height) or 1):+5.1f} %  "
        f"{verdict.shape.value:<9}  {MARKS[check.state]:<6}  {check.seconds:.1f} s"
    )


def _what(curve: Curve) -> str:
    """The peak: of the accuracy, or without labels of the cleanliness."""
    if curve.peak_accuracy is None:
        return f"clean {max(curve.score.mean):8.3f}"
    return f"accuracy {100 * curve.peak_accuracy:5.1f} %"


class ConsoleReporter:
    """Prints a line for each check, the copies where they were counted, and the evidence when the state changes.

    Args:
        write: prints a line; a progress bar's own print keeps the bar whole.
    """

    def __init__(self, write: Callable[[str], None] = print) -> None:
        self.write = write

    def report(self, history: Sequence[Check]) -> None:
        """Print the last check."""
        check, verdict = history[-1], history[-1].verdict
        before = history[-2].state if len(history) > 1 else AlarmState.WARMING_UP
        self.write(line(check))
        if check.audit is not None:
            self.write(f"unimodal  {check.audit.sentence()}")
        if check.state is not before:
            change = f"{before.value} -> {check.state.value}"
            self.write(f"unimodal  {change}: {check.evidence}; {verdict.shape.value}: {verdict.reason}")

    def glance(self, glance: Glance) -> None:
        """Print what is as it was."""
        what = f"glance: {glance.sentence}"
        self.write(f"unimodal  step {glance.step:>7}  {what:<57}  {MARKS[glance.state]:<6}  {glance.seconds:.1f} s")


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal that appears after a second and vanishes at the end; the value counts images done."""
    console = Console(file=sys.stderr)
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task, start = bar.add_task(description, total=total), time.perf_counter()

    def advance(num_images: int) -> None:
        bar.advance(task, num_images)
        if not bar.live.is_started and time.perf_counter() - start > PATIENCE_S:
            bar.start()

    try:
        yield advance
    finally:
        bar.stop()
