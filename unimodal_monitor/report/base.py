"""The contract of a reporter, and the figures that all reporters share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Protocol

from torch import Tensor

from unimodal_monitor.check import Check
from unimodal_monitor.report.plot_copies import can_be_shown, plot_copies
from unimodal_monitor.report.plot_curve import plot_curve
from unimodal_monitor.report.plot_evidence import plot_evidence
from unimodal_monitor.report.plot_history import plot_history
from unimodal_monitor.report.style import Figure


class Reporter(Protocol):
    """Shows or writes what the checks have measured.

    >>> class Counter:
    ...     def report(self, history, figures):
    ...         print(f"{len(history)} checks")
    >>> Counter().report([], {})
    0 checks
    """

    def report(self, history: Sequence[Check], figures: Mapping[str, Figure]) -> None:
        """Report the last check of the history, which is new; see `Figures` for what can be shown, but not changed."""
        ...


class Figures(Mapping[str, Figure]):
    """Matplotlib figures "curve", "history", "evidence" and "copies", each drawn once, when it is first asked for.

    Args:
        history: At least one check; the last one is in front.
        training: (N, C, H, W) training images, to show "copies" where the last check has an audit of images.
    """

    def __init__(self, history: Sequence[Check], training: Tensor | None = None) -> None:
        checks, audit = tuple(history), history[-1].audit
        draw: dict[str, Callable[[], Figure]] = {
            "curve": partial(plot_curve, checks[-1], earlier=checks[:-1]),
            "history": partial(plot_history, checks),
            "evidence": partial(plot_evidence, checks),
        }
        if audit is not None and can_be_shown(audit.samples) and can_be_shown(training):
            draw["copies"] = partial(plot_copies, audit, audit.samples, training)
        self._draw = {name: cache(function) for name, function in draw.items()}

    def __getitem__(self, name: str) -> Figure:
        return self._draw[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._draw)

    def __len__(self) -> int:
        return len(self._draw)
