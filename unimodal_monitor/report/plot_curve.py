"""Figure: the curve of one check."""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np

from unimodal_monitor.check import Check
from unimodal_monitor.report.style import ACCENT, INK, MUTED, Figure, new_figure
from unimodal_monitor.stats.estimate import Curve
from unimodal_monitor.stats.verdict import Shape

NUM_EARLIER = 8


def plot_curve(check: Check, *, earlier: Sequence[Check] = ()) -> Figure:
    """Accuracy and score of a check against sigma, with two standard errors; the last earlier checks faint behind.

    >>> plot_curve(check).get_suptitle()[:6]
    'step 0'
    """
    title = f"step {check.step}: {check.verdict.shape.value}, {check.state.value}\n{check.verdict.reason}"
    figure = new_figure(9.5, 4.2, title=title, check=check)
    names = ("score",) if check.curve.accuracy is None else ("accuracy", "score")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for past in earlier[-NUM_EARLIER:]:
            _draw(axes, past.curve, name, color=MUTED, alpha=0.25, linewidth=1)
        for curve, style in zip(check.curves[:-1], cycle(("--", ":", "-.")), strict=False):
            _draw(axes, curve, name, color=MUTED, linestyle=style, linewidth=1.2, label=curve.layer)
        _draw(axes, check.curve, name, color=INK, linewidth=2, errors=True, label=f"{check.curve.layer} (judged)")
        if check.verdict.shape is Shape.UNIMODAL:
            axes.axvline(check.verdict.peak_sigma, color=ACCENT, linewidth=1, linestyle=":", label="peak")
        label = "accuracy (%)" if name == "accuracy" else check.curve.score.name
        axes.set(xscale="log", xlabel="sigma (data units)", ylabel=label)
        axes.spines["right"].set_visible(False)
        _add_log_snr(axes, check.curve.sigmas)
    panels[0].legend(frameon=False, fontsize=8, loc="lower left")
    return figure


def _draw(axes: Any, curve: Curve, name: str, *, errors: bool = False, **style: Any) -> None:
    means, factor = getattr(curve, name), 100 if name == "accuracy" else 1
    if means is None:
        return
    mean, error = factor * np.array(means.mean), 2 * factor * np.array(means.errors)
    axes.plot(curve.sigmas, mean, **style)
    if errors:
        axes.fill_between(curve.sigmas, mean - error, mean + error, color=style["color"], alpha=0.12, linewidth=0)


def _add_log_snr(axes: Any, sigmas: Sequence[float]) -> None:
    ticks = [tick for tick in range(-20, 21, 2) if sigmas[0] <= np.exp(-tick / 2) <= sigmas[-1]]
    snr = axes.secondary_xaxis("top")
    snr.set_xticks([np.exp(-tick / 2) for tick in ticks], ticks)
    snr.set_xticks([], minor=True)
    snr.set_xlabel("log-SNR", fontsize=8)
    snr.tick_params(labelsize=7)
