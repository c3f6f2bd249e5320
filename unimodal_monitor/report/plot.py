"""Figures: the curve of one check, and the history of a run."""

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from unimodal_monitor.alarm.alarm import AlarmState
from unimodal_monitor.check import Check
from unimodal_monitor.stats.estimate import Curve, Estimate
from unimodal_monitor.stats.max_t import low_end
from unimodal_monitor.stats.verdict import Shape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_EARLIER = 8
LOG_SNR_TICKS = range(-20, 21, 2)
INK, MUTED, ACCENT = "#1f2933", "#9aa5b1", "#c2410c"
SHAPE_COLOURS = {Shape.UNIMODAL: "#15803d", Shape.UNDECIDED: "#d9dee5", Shape.MONOTONE: "#b45309"}
STATE_COLOURS = {
    AlarmState.WARMING_UP: "#d9dee5",
    AlarmState.NEVER_UNIMODAL: "#9aa5b1",
    AlarmState.ARMED: "#15803d",
    AlarmState.FADING: "#d97706",
    AlarmState.RAISED: "#b91c1c",
}


def plot_curve(check: Check, *, earlier: Sequence[Check] = ()) -> "Figure":
    """Accuracy and score of a check against sigma, the judged layer in front, earlier checks faint behind it."""
    figure = new_figure(9.5, 4.2)
    names = ("score",) if check.curve.accuracy is None else ("accuracy", "score")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for past in earlier[-NUM_EARLIER:]:
            _draw(axes, past.curve, name, color=MUTED, alpha=0.25, linewidth=1)
        for curve, style in zip(check.curves[:-1], cycle(("--", ":", "-.")), strict=False):
            _draw(axes, curve, name, color=MUTED, linestyle=style, linewidth=1.2, label=curve.layer)
        _draw(axes, check.curve, name, color=INK, linewidth=2, errors=True, label=f"{check.curve.layer} (judged)")
        _dress_curve(axes, check, name)
    panels[0].legend(frameon=False, fontsize=8, loc="lower left")
    figure.suptitle(
        f"step {check.step}: {check.verdict.shape.value}, alarm {check.state.value}\n{check.verdict.reason}",
        fontsize=10, color=INK, x=0.02, ha="left",
    )  # fmt: skip
    return figure


def plot_history(checks: Sequence[Check]) -> "Figure":
    """Steps x sigma: how far the score lies over its low-noise end; below it the verdicts and the peak accuracy."""
    figure = new_figure(9.5, 5.6)
    heat, strip, peak = figure.subplots(3, 1, sharex=True, height_ratios=(6, 0.9, 3))
    edges = _edges(np.array([check.step for check in checks], dtype=float))
    relative_KT = np.stack([_over_low_end(check.curve) for check in checks], axis=1)
    sigmas = np.log10(checks[-1].curve.sigmas)
    colours = _colours(100 * relative_KT)
    picture = heat.pcolormesh(edges, 10 ** _edges(sigmas), 100 * relative_KT, **colours)
    norm = colours["norm"]
    ticks = [norm.vmin, norm.vmin / 2, 0, norm.vmax / 2, norm.vmax]
    bar = figure.colorbar(
        picture, ax=[heat, strip, peak], label="score over its low-noise end (%)", aspect=35, pad=0.02
    )
    bar.set_ticks(ticks, labels=[f"{tick:+.0f}" if abs(tick) >= 10 else f"{tick:+.1f}" for tick in ticks])
    heat.set(yscale="log", ylabel="sigma")
    _mark_peaks(heat, checks)
    _draw_strip(strip, checks, edges)
    _draw_peak(peak, checks)
    best = "are cleanest" if checks[-1].curve.accuracy is None else "know the class best"
    heat.set_title(f"Where the features {best}, over the training", fontsize=10, color=INK, loc="left")
    return figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this size in inches, in nobody's window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw(axes: "Axes", curve: Curve, name: str, *, errors: bool = False, **style: Any) -> None:
    estimate: Estimate = getattr(curve, name)
    factor = 100 if name == "accuracy" else 1
    mean, error = factor * np.array(estimate.mean), 2 * factor * np.array(estimate.errors)
    axes.plot(curve.sigmas, mean, **style)
    if errors:
        axes.fill_between(curve.sigmas, mean - error, mean + error, color=style["color"], alpha=0.12, linewidth=0)


def _dress_curve(axes: "Axes", check: Check, name: str) -> None:
    if check.verdict.shape is Shape.UNIMODAL:
        axes.axvline(check.verdict.peak_sigma, color=ACCENT, linewidth=1, linestyle=":", label="peak")
    axes.set_xscale("log")
    axes.set_xlabel("sigma (data units)")
    axes.set_ylabel("accuracy (%)" if name == "accuracy" else check.curve.score.name)
    axes.spines["right"].set_visible(False)
    ticks = [tick for tick in LOG_SNR_TICKS if check.curve.sigmas[0] <= np.exp(-tick / 2) <= check.curve.sigmas[-1]]
    snr = axes.secondary_xaxis("top")
    snr.set_xticks([np.exp(-tick / 2) for tick in ticks], [f"{tick:d}" for tick in ticks])
    snr.set_xticks([], minor=True)
    snr.set_xlabel("log-SNR", fontsize=8)
    snr.tick_params(labelsize=7)


def _over_low_end(curve: Curve) -> np.ndarray:
    """(K,) score over its low-noise end, as a share of it."""
    mean = np.array(curve.score.mean)
    base = mean[: low_end(curve)].mean()
    return (mean - base) / max(abs(base), 1e-12)


def _edges(centres: np.ndarray) -> np.ndarray:
    """Cell borders half way between the centres."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _colours(values: np.ndarray) -> dict[str, Any]:
    """White at the low-noise end, orange above it, blue below; each side has its own range."""
    from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

    cmap = LinearSegmentedColormap.from_list("rise", ["#3d5a80", "#f7f6f2", "#c2410c"])
    return {"cmap": cmap, "norm": TwoSlopeNorm(0, vmin=min(-10.0, values.min()), vmax=max(2.0, values.max()))}


def _mark_peaks(axes: "Axes", checks: Sequence[Check]) -> None:
    sure = [check for check in checks if check.verdict.shape is Shape.UNIMODAL]
    axes.plot(
        [c.step for c in sure],
        [c.verdict.peak_sigma for c in sure],
        "o",
        color=INK,
        markersize=4,
        label="peak, where sure",
    )
    if sure:
        axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 0.98), borderaxespad=0.2)


def _draw_strip(axes: "Axes", checks: Sequence[Check], edges: np.ndarray) -> None:
    for check, left, right in zip(checks, edges[:-1], edges[1:], strict=True):
        axes.axvspan(left, right, 0.5, 1, color=SHAPE_COLOURS[check.verdict.shape], linewidth=0)
        axes.axvspan(left, right, 0, 0.42, color=STATE_COLOURS[check.state], linewidth=0)
    axes.set(yticks=[0.21, 0.75], yticklabels=["alarm", "shape"], ylim=(0, 1))
    axes.tick_params(axis="y", length=0, labelsize=8)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _strip_key() -> list[Any]:
    from matplotlib.patches import Patch

    names = {
        "unimodal; armed": SHAPE_COLOURS[Shape.UNIMODAL],
        "monotone": SHAPE_COLOURS[Shape.MONOTONE],
        "undecided; warming up": SHAPE_COLOURS[Shape.UNDECIDED],
        "never unimodal": STATE_COLOURS[AlarmState.NEVER_UNIMODAL],
        "fading": STATE_COLOURS[AlarmState.FADING],
        "alarm raised": STATE_COLOURS[AlarmState.RAISED],
    }
    return [Patch(color=colour, label=name) for name, colour in names.items()]


def _draw_peak(axes: "Axes", checks: Sequence[Check]) -> None:
    steps = [check.step for check in checks]
    accuracies = [check.curve.peak_accuracy for check in checks]
    if any(accuracy is None for accuracy in accuracies):
        peaks, label = [max(check.curve.score.mean) for check in checks], "peak cleanliness"
    else:
        peaks, label = [100 * (accuracy or 0.0) for accuracy in accuracies], "peak accuracy (%)"
    axes.plot(steps, peaks, color=INK, linewidth=1.8, marker=".")
    axes.set(xlabel="step", ylabel=label)
    axes.ticklabel_format(axis="y", useOffset=False)  # which would lie on the key
    axes.legend(handles=_strip_key(), frameon=False, fontsize=7, ncols=6, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    axes.spines[["top", "right"]].set_visible(False)
    raised = next((check.step for check in checks if check.state is AlarmState.RAISED), None)
    if raised is not None:
        axes.axvline(raised, color=STATE_COLOURS[AlarmState.RAISED], linewidth=1.2)
        axes.annotate(" alarm", (raised, 1), xycoords=("data", "axes fraction"), va="top", fontsize=8, color="#b91c1c")
