"""The figure of all signals: its panels, what they show, and what is left out."""

from dataclasses import replace

import numpy as np
from simulated_checks import RUN, SIGNALS

from unimodal_monitor.report.plot_evidence import plot_evidence
from unimodal_monitor.stats.estimate import Estimate


def drawn(axes) -> np.ndarray:
    """(4, T) steps, values, lower and upper limits of a panel."""
    ((line, _, (segments,)),) = axes.containers
    limits_T2 = np.array([segment[:, 1] for segment in segments.get_segments()])
    return np.stack([*line.get_data(), limits_T2.min(1), limits_T2.max(1)])


def test_rise_copies_and_signals_have_panels_with_limits_and_units():
    """In per cent, over one axis of whole steps: there is no step 0.02."""
    figure = plot_evidence(RUN)
    rise, gap, *_, copies = figure.axes
    labels = [axes.get_ylabel().replace("\n", " ") for axes in figure.axes]
    assert labels == ["rise (% of height)", *[signal.label for signal in SIGNALS], "copies (% of samples)"]
    expected = [(found.rise, found.rise_low, found.rise_high) for found in (check.verdict for check in RUN)]
    np.testing.assert_allclose(drawn(rise)[1:], 100 * np.transpose(expected))
    np.testing.assert_allclose(drawn(gap)[1:], np.tile([[0.3], [0.25], [0.37]], 3))
    np.testing.assert_allclose(np.ravel(drawn(copies)), [207, 7.0, 4.4, 10.5])
    single = plot_evidence([replace(RUN[0], signals=())])
    single.draw_without_rendering()
    assert all(float(tick).is_integer() for tick in single.axes[0].get_xticks())


def test_a_new_signal_appears_by_itself_with_label_neutral_line_and_caveat():
    """At the level of its headline, the one with the highest lower limit."""
    mine = Estimate("mine", "my signal", (0.1, 0.2), (0.9, 0.7), (0.1, 0.6), (1.2, 0.8), 0.4, note="Few images.")
    axes = plot_evidence([RUN[0], replace(RUN[1], signals=(mine,))]).axes[-1]
    assert (axes.get_ylabel(), axes.get_title("left")) == ("my signal", "Few images.")
    np.testing.assert_allclose(np.ravel(drawn(axes)), [100, 0.7, 0.6, 0.8])
    assert [0.4, 0.4] in [list(line.get_ydata()) for line in axes.get_lines()]


def test_a_check_without_a_signal_is_left_out_of_its_panel():
    """Whether it was not measured or is defined at no level; it stays in the others."""
    undefined = Estimate("normalized_gap", "normalized gap (1: memorizer)", (), (), (), ())
    history = [RUN[0], replace(RUN[1], signals=(undefined,)), replace(RUN[2], signals=SIGNALS[1:])]
    steps = [drawn(axes)[0].tolist() for axes in plot_evidence(history).axes[:3]]
    assert steps == [[0, 100, 207], [0], [0, 207]]
