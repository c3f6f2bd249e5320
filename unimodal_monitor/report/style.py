"""Colours and layout that all figures share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unimodal_monitor.alarm.state import AlarmState
from unimodal_monitor.check import Check
from unimodal_monitor.stats.verdict import Shape

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Figure
else:
    Figure = Any  # Matplotlib is loaded with the first figure

INK, MUTED, PALE, ACCENT = "#1f2933", "#9aa5b1", "#d9dee5", "#c2410c"
GREEN, AMBER, ORANGE, RED, DARK = "#15803d", "#b45309", "#d97706", "#b91c1c", "#4c0519"
SHAPE_COLOURS = {Shape.UNIMODAL: GREEN, Shape.UNDECIDED: PALE, Shape.MONOTONE: AMBER}
STATE_COLOURS = {AlarmState.WARMING_UP: PALE, AlarmState.GENERALIZING: GREEN, AlarmState.ONSET: ORANGE}
STATE_COLOURS |= {AlarmState.MEMORIZING: RED, AlarmState.COPYING: DARK}


def new_figure(width: float, height: float, *, title: str | None = None, check: Check | None = None) -> Figure:
    """An empty figure of this size in inches, unknown to pyplot; a check that is not verified says so in the title."""
    from matplotlib.figure import Figure

    caution = "" if check is None else check.caution
    title = "\n".join(text for text in (title, caution) if text)

    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=10, color=INK, x=0.02, ha="left")
    return figure


def mark_alarm(axes: Any, checks: Sequence[Check], *, text: str = "") -> None:
    """A line behind the data at the first check that found memorizing or copying, if there is one."""
    step = next((check.step for check in checks if check.state >= AlarmState.MEMORIZING), None)
    if step is not None:
        axes.axvline(step, color=RED, linewidth=1.1, zorder=0)
        axes.annotate(f" {text}", (step, 1), xycoords=("data", "axes fraction"), va="top", fontsize=8, color=RED)
