"""Figure: the curves, shapes and alarms of a run."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unimodal_monitor.check import Check
from unimodal_monitor.report import style
from unimodal_monitor.report.style import INK, Figure, mark_alarm, new_figure
from unimodal_monitor.stats.max_t import low_end
from unimodal_monitor.stats.verdict import Shape

KEY = {"unimodal; generalizing": style.GREEN, "monotone": style.AMBER, "undecided; warming up": style.PALE}
KEY |= {"onset": style.ORANGE, "memorizing": style.RED, "copying": style.DARK}


def plot_history(checks: Sequence[Check]) -> Figure:
    """Score over its low-noise end by step and sigma; below it shapes and alarms, and the peak.

    >>> plot_history([check]).axes[0].get_ylabel()
    'sigma'
    """
    figure = new_figure(9.5, 5.6, check=checks[-1] if checks else None)
    heat, strip, peak = panels = figure.subplots(3, 1, sharex=True, height_ratios=(6, 0.9, 3))
    edges = _edges(np.array([check.step for check in checks], dtype=float))
    bar = figure.colorbar(_draw_heat(heat, checks, edges), ax=list(panels), aspect=35, pad=0.02)
    low, high = bar.mappable.get_clim()
    ticks = [low, low / 2, 0, high / 2, high]
    bar.set_ticks(ticks, labels=[f"{tick:+.0f}" if abs(tick) >= 10 else f"{tick:+.1f}" for tick in ticks])
    bar.set_label("score over its low-noise end (%, cut at ±100)")
    for check, left, right in zip(checks, edges[:-1], edges[1:], strict=True):
        strip.axvspan(left, right, 0.5, 1, color=style.SHAPE_COLOURS[check.verdict.shape], linewidth=0)
        strip.axvspan(left, right, 0, 0.42, color=style.STATE_COLOURS[check.state], linewidth=0)
    strip.set(yticks=[0.21, 0.75], yticklabels=["state", "shape"], ylim=(0, 1))
    strip.tick_params(axis="y", length=0, labelsize=8)
    strip.spines[:].set_visible(False)
    _draw_peak(peak, checks)
    return figure


def _draw_heat(axes: Any, checks: Sequence[Check], edges: np.ndarray) -> Any:
    """White at the low-noise end, orange above it, blue below; each side has its own range."""
    from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

    curve, score_KT = checks[-1].curve, np.array([check.curve.score.mean for check in checks]).T
    base_T = score_KT[: low_end(curve)].mean(0)
    percent_KT = np.clip(100 * (score_KT - base_T) / np.maximum(np.abs(base_T), 1e-12), -100, 100)
    cmap = LinearSegmentedColormap.from_list("rise", ["#3d5a80", "#f7f6f2", "#c2410c"])
    norm = TwoSlopeNorm(0, vmin=min(-10.0, percent_KT.min()), vmax=max(2.0, percent_KT.max()))
    known = "are most invariant" if curve.accuracy is None else "know the class best"
    axes.set_title(f"Where the features {known}, over the training", fontsize=10, color=INK, loc="left")
    axes.set(yscale="log", ylabel="sigma")
    peaks = [(check.step, check.verdict.peak_sigma) for check in checks if check.verdict.shape is Shape.UNIMODAL]
    if peaks:
        axes.plot(*zip(*peaks, strict=True), "o", color=INK, markersize=4, label="peak, where unimodal")
        axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 0.98), borderaxespad=0.2)
    return axes.pcolormesh(edges, 10 ** _edges(np.log10(curve.sigmas)), percent_KT, cmap=cmap, norm=norm)


def _edges(centres: np.ndarray) -> np.ndarray:
    """Borders half way between the centres, and as far beyond the outer ones; 1 apart around a single one."""
    half = np.diff(centres) / 2 if len(centres) > 1 else np.array([0.5])
    return np.concatenate([centres[:1] - half[0], centres[:-1] + half[: len(centres) - 1], centres[-1:] + half[-1]])


def _draw_peak(axes: Any, checks: Sequence[Check]) -> None:
    from matplotlib.patches import Patch

    accuracies = [check.curve.peak_accuracy for check in checks]
    peaks, label = [100 * accuracy for accuracy in accuracies if accuracy is not None], "peak accuracy (%)"
    if len(peaks) < len(checks):
        peaks, label = [max(check.curve.score.mean) for check in checks], "peak score"
    axes.plot([check.step for check in checks], peaks, color=INK, linewidth=1.8, marker=".")
    axes.set(xlabel="step", ylabel=label)
    axes.ticklabel_format(axis="y", useOffset=False)  # the offset would lie on the key
    key = [Patch(color=colour, label=name) for name, colour in KEY.items()]
    axes.legend(handles=key, frameon=False, fontsize=7, ncols=6, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    axes.spines[["top", "right"]].set_visible(False)
    mark_alarm(axes, checks, text="alarm")
