"""Figure: all witnesses of a run, one above the other."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from unimodal_monitor.alarm.alarm import AlarmState
from unimodal_monitor.check import Check
from unimodal_monitor.report.plot import INK, MUTED, STATE_COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float, float]
"""Value, lower and upper limit."""


LEAST_SPAN = 0.02
"""Under which a panel without a neutral value is not stretched: its ups and downs would look like something."""


def plot_evidence(checks: Sequence[Check]) -> "Figure":
    """What each witness says over the training, with 95 % limits: rise, gap, contamination, spikiness, copies.

    Witnesses that were heard at no check have no panel.
    """
    heard = [(title, points) for title, (read, _) in WITNESSES.items() if (points := _read(checks, read))]
    figure = new_figure(9.5, 1.2 + 1.45 * len(heard))
    panels = figure.subplots(len(heard), 1, sharex=True, squeeze=False)[:, 0]
    raised = next((check.step for check in checks if check.state is AlarmState.RAISED), None)
    for axes, (title, points) in zip(panels, heard, strict=True):
        _draw(axes, title, points)
        if raised is not None:
            axes.axvline(raised, color=STATE_COLOURS[AlarmState.RAISED], linewidth=1, zorder=0)
    if raised is not None:
        panels[0].annotate(
            " alarm", (raised, 1), xycoords=("data", "axes fraction"), va="top", fontsize=8,
            color=STATE_COLOURS[AlarmState.RAISED],
        )  # fmt: skip
    panels[-1].set_xlabel("step", fontsize=9)
    panels[-1].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    figure.align_ylabels(panels)
    figure.suptitle("What each witness says, with 95 % limits", fontsize=10, color=INK, x=0.02, ha="left")
    return figure


def _rise(check: Check) -> Point:
    scale = 100 / (abs(check.verdict.height) or 1)
    return check.verdict.rise * scale, check.verdict.rise_low * scale, check.verdict.rise_high * scale


def _gap(check: Check) -> Point | None:
    """At the level where the lower limit is highest."""
    normalized = (check.testimony.get("gap") or {}).get("normalized")
    if not normalized or not normalized["value_L"]:
        return None
    best = int(np.argmax(normalized["low_L"]))
    return normalized["value_L"][best], normalized["low_L"][best], normalized["high_L"][best]


def _contamination(check: Check) -> Point | None:
    """At the cleanest level."""
    said = check.testimony.get("contamination")
    if not said:
        return None
    best = int(np.argmin(said["icr_K"]))
    value, reach = said["icr_K"][best], 1.96 * said["error_K"][best]
    return value, value - reach, value + reach


def _spikiness(check: Check) -> Point | None:
    """At the level where it tells most."""
    said = check.testimony.get("spikiness")
    if not said:
        return None
    best = int(np.argmax(np.abs(np.array(said["auc_K"]) - 0.5)))
    return said["auc_K"][best], said["low_K"][best], said["high_K"][best]


def _copies(check: Check) -> Point | None:
    if check.audit is None:
        return None
    low, high = check.audit.interval
    return 100 * check.audit.fraction, 100 * low, 100 * high


WITNESSES: dict[str, tuple[Callable[[Check], Point | None], float | None]] = {
    "rise\n(% of height)": (_rise, 0.0),
    "normalized gap\n(1: memorizer)": (_gap, 0.0),
    "ICR\n(0: no noise)": (_contamination, None),
    "spikiness AUC\n(0.5: alike)": (_spikiness, 0.5),
    "copies\n(% of samples)": (_copies, 0.0),
}
"""How each is read, by its label, and the value that says nothing, where there is one."""


def _read(checks: Sequence[Check], read: Callable[[Check], Point | None]) -> list[tuple[int, Point]]:
    return [(check.step, point) for check in checks if (point := read(check)) is not None]


def _draw(axes: "Axes", title: str, points: list[tuple[int, Point]]) -> None:
    steps = [step for step, _ in points]
    value, low, high = np.array([point for _, point in points]).T
    # rounding can put an estimate outside its own limits, by which Matplotlib will not draw an error bar
    reach = np.maximum([value - low, high - value], 0)
    axes.fill_between(steps, low, high, color=MUTED, alpha=0.3, linewidth=0)
    axes.errorbar(steps, value, yerr=reach, color=INK, linewidth=1.6, marker="o", markersize=4, elinewidth=1, capsize=2)
    neutral = WITNESSES[title][1]
    if neutral is None:
        margin = max(high.max() - low.min(), LEAST_SPAN) / 5
        axes.set_ylim(low.min() - margin, high.max() + margin)
    else:
        axes.axhline(neutral, color=MUTED, linewidth=0.8, linestyle=":")
    axes.set_ylabel(title, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
