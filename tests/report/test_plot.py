"""The figures: their axes and labels, for one check and for several."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from simulated import FALLING, HUMPED, USELESS, simulated_check

from unimodal_monitor.alarm.alarm import AlarmState
from unimodal_monitor.check import Check
from unimodal_monitor.report.plot import plot_curve, plot_history

RUN = [
    simulated_check(0, FALLING, state=AlarmState.WARMING_UP),
    simulated_check(100, HUMPED),
    simulated_check(207, FALLING, state=AlarmState.RAISED),
]
HISTORIES = {
    "one check": RUN[:1],
    "three checks": RUN,
    "a probe that knows nothing": [simulated_check(0, USELESS), simulated_check(10, USELESS)],
    "all of these": [*RUN, simulated_check(300, USELESS)],
}


def saved(figure: Figure, path: Path) -> bool:
    figure.savefig(path, dpi=60)
    return path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_both_figures_can_be_drawn_and_saved(tmp_path, history):
    """From the first check on, and where the low-noise end is negative, which the colours divide by."""
    assert saved(plot_curve(history[-1], earlier=history[:-1]), tmp_path / "curve.png")
    assert saved(plot_history(history), tmp_path / "history.png")


def test_the_curve_has_accuracy_and_score_against_sigma():
    """In per cent and in the probe's own unit, on a logarithmic axis, under the step and the verdict."""
    check = RUN[1]
    figure = plot_curve(check)
    accuracy, score = figure.axes
    assert (accuracy.get_ylabel(), score.get_ylabel()) == ("accuracy (%)", "Brier gain")
    for axes in (accuracy, score):
        assert axes.get_xlabel() == "sigma (data units)"
        assert axes.get_xscale() == "log"
    title = figure.get_suptitle()
    assert title.startswith("step 100: unimodal, alarm armed")
    assert check.verdict.reason in title


def line_of(axes, label: str) -> np.ndarray:
    return next(np.asarray(line.get_ydata()) for line in axes.get_lines() if line.get_label() == label)


def test_the_curve_shows_the_figures_of_the_judged_layer():
    """What is drawn is what was measured."""
    check = RUN[1]
    accuracy, score = plot_curve(check).axes
    np.testing.assert_allclose(line_of(accuracy, "up_blocks.1 (judged)"), 100 * np.array(check.curve.accuracy.mean))
    np.testing.assert_allclose(line_of(score, "up_blocks.1 (judged)"), check.curve.score.mean)


@pytest.mark.parametrize("layers", [1, 3, 5])
def test_every_layer_is_drawn(layers: int):
    """However many were asked for."""
    check = simulated_check(0, layers=layers)
    drawn = {line.get_label() for line in plot_curve(check).axes[0].get_lines()}
    assert {curve.layer for curve in check.curves[:-1]} | {f"{check.curve.layer} (judged)"} <= drawn


def is_marked(check: Check) -> bool:
    return "peak" in [line.get_label() for line in plot_curve(check).axes[0].get_lines()]


def test_a_peak_is_marked_only_where_there_is_one():
    """A falling curve has a highest interior level too, which is no peak."""
    assert is_marked(RUN[1])
    assert not is_marked(RUN[0])


def test_the_history_has_levels_verdicts_and_accuracy_over_steps():
    """Three panels over one axis of steps, and the colours explained."""
    figure = plot_history(RUN)
    heat, strip, peak, bar = figure.axes
    assert (heat.get_ylabel(), heat.get_yscale()) == ("sigma", "log")
    assert [tick.get_text() for tick in strip.get_yticklabels()] == ["alarm", "shape"]
    assert (peak.get_xlabel(), peak.get_ylabel()) == ("step", "peak accuracy (%)")
    assert bar.get_ylabel() == "score over its low-noise end (%)"
    np.testing.assert_allclose(peak.get_lines()[0].get_data()[0], [0, 100, 207])


def test_colours_are_the_score_over_its_low_noise_end():
    """In per cent of it, level by step, with zero in the middle of the colours."""
    (cells,) = plot_history(RUN).axes[0].collections
    score_KT = np.array([check.curve.score.mean for check in RUN]).T
    base_T = score_KT[:2].mean(0)
    np.testing.assert_allclose(cells.get_array().reshape(score_KT.shape), 100 * (score_KT - base_T) / base_T)
    assert float(cells.norm(0.0)) == 0.5


def test_the_first_alarm_is_marked():
    """At its step, and not at all in a run without one."""
    assert [text.xy[0] for text in plot_history(RUN).axes[2].texts] == [207]
    assert not plot_history(RUN[:2]).axes[2].texts
