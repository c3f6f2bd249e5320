"""One line for each check, and a progress bar while a check takes long."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from unimodal_monitor.alarm.state import AlarmState
from unimodal_monitor.check import Check, forecast_of, state_before


def line(check: Check) -> str:
    """A check in one line: step, curve from low noise to high, its peak, rise, shape, weights, seconds, state."""
    curve, verdict = check.curve, check.verdict
    peak = f"peak {max(curve.score.mean):11.3f}"
    if curve.peak_accuracy is not None:
        peak = f"accuracy {100 * curve.peak_accuracy:5.1f} %"
    return (
        f"step {check.step:>7}  {curve.sparkline()}  {peak}  rise {100 * verdict.rise:+5.1f} %  "
        f"{verdict.shape.value:<9}  {check.weights}  {check.seconds:5.1f} s  {check.state.value}"
        f"{'  not verified' if check.caution else ''}"
    )


class ConsoleReporter:
    """Prints a line for each check, the copies where they were counted, and the evidence when the state changes.

    Args:
        write: Function that prints a line; that of a progress bar keeps the bar whole.
        name: First word of each line, which tells monitors apart.
    """

    def __init__(self, write: Callable[[str], Any] = print, *, name: str = "unimodal") -> None:
        self.write = write
        self.name = name

    def report(self, history: Sequence[Check], figures: Mapping[str, Any]) -> None:
        """Print the last check."""
        check, verdict = history[-1], history[-1].verdict
        before = state_before(history)
        self.write(f"{self.name}  {line(check)}")
        if check.audit is not None:
            self.write(f"{self.name}  {check.audit.sentence()}")
        if check.state is not before:
            change = f"{before.value} -> {check.state.value}"
            curve = f"the curve is {verdict.shape.value}: {verdict.reason}"
            self.write(f"{self.name}  {change}: {check.evidence}; {curve}. {check.state.advice}")
            if check.state > AlarmState.GENERALIZING and (expected := forecast_of(history)) is not None:
                self.write(f"{self.name}  {expected.sentence('steps')}")


def warn(message: str) -> None:
    """Warn; where warnings are errors, log instead, since a check must not end the training."""
    try:
        warnings.warn(message, stacklevel=3)
    except Warning:
        logging.getLogger("unimodal_monitor").warning(message)


@contextmanager
def progress_bar(
    description: str, total: int, *, is_shown: bool = True, delay_s: float = 1.0
) -> Iterator[Callable[[int], Any]]:
    """A bar on stderr, if that is a terminal, from `delay_s` to the end; the value takes the number of images done."""
    is_hidden = not (is_shown and sys.stderr.isatty())
    with tqdm(total=total, desc=description, unit=" images", delay=delay_s, leave=False, disable=is_hidden) as bar:
        yield bar.update
