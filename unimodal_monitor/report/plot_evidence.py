"""Figure: the rise, every signal and the copies over a run, one panel each."""

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np

from unimodal_monitor.check import Check
from unimodal_monitor.report.style import INK, MUTED, Figure, mark_alarm, new_figure
from unimodal_monitor.stats.estimate import Estimate


def plot_evidence(checks: Sequence[Check]) -> Figure:
    """Rise, headline value of each signal, and copies over the steps, with their limits, where they were measured.

    >>> [axes.get_ylabel() for axes in plot_evidence([check]).axes][0]
    'rise\\n(% of height)'
    """
    latest: dict[str, Estimate] = {}
    rows: dict[str, list[tuple[float, ...]]] = {}
    for check in checks:
        for estimate in _estimates(check):
            if found := estimate.headline:
                latest[estimate.name] = estimate
                rows.setdefault(estimate.name, []).append((check.step, found.value, found.low, found.high))
    figure = new_figure(
        9.5,
        1.2 + 1.45 * len(rows),
        title="Rise, signals and copies, with 95 % limits",
        check=checks[-1] if checks else None,
    )
    panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, rows, strict=True):
        _draw(axes, latest[name], rows[name])
        mark_alarm(axes, checks, text="alarm" if axes is panels[0] else "")
    panels[-1].set_xlabel("step", fontsize=9)
    panels[-1].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    figure.align_ylabels(panels)
    return figure


def _estimates(check: Check) -> list[Estimate]:
    """The check's signals, with the rise before them and the copies behind, in per cent."""
    verdict, audit = check.verdict, check.audit
    value, low, high = ((100 * share,) for share in (verdict.rise, verdict.rise_low, verdict.rise_high))
    estimates = [Estimate("rise", "rise (% of height)", (0.0,), value, low, high, neutral=0.0), *check.signals]
    if audit is not None:
        value, low, high = ((100 * share,) for share in (audit.fraction, *audit.interval))
        estimates.append(Estimate("copies", "copies (% of samples)", (0.0,), value, low, high, neutral=0.0))
    return estimates


def _draw(axes: Any, estimate: Estimate, rows: list[tuple[float, ...]]) -> None:
    steps, value, low, high = np.array(rows).T
    # rounding can put an estimate outside its own limits; Matplotlib draws no error bar of negative length
    lengths = np.maximum([value - low, high - value], 0)
    axes.fill_between(steps, low, high, color=MUTED, alpha=0.3, linewidth=0)
    axes.errorbar(steps, value, lengths, color=INK, linewidth=1.6, marker="o", markersize=4, elinewidth=1, capsize=2)
    if estimate.neutral is None:
        margin = max(high.max() - low.min(), 0.02) / 5  # tiny changes are not stretched to the panel's height
        axes.set_ylim(low.min() - margin, high.max() + margin)
    else:
        axes.axhline(estimate.neutral, color=MUTED, linewidth=0.8, linestyle=":")
    axes.set_ylabel("\n(".join(fill(part, 24) for part in estimate.label.split(" (", 1)), fontsize=8)
    axes.set_title(fill(estimate.note, 150), fontsize=7, color=MUTED, loc="left")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
