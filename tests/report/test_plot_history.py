"""The figure of a run: levels, verdicts and peaks over the steps."""

import numpy as np
import pytest
from simulated_checks import RUN, without_labels

from unimodal_monitor.report.plot_history import plot_history


def test_colours_are_the_score_over_its_low_noise_end_around_step_and_sigma():
    """In per cent of it, with zero in the middle of the colours; the sigma of a peak is marked where there is one."""
    heat = plot_history(RUN).axes[0]
    (cells,), (marks,) = heat.collections, heat.get_lines()
    score_KT = np.array([check.curve.score.mean for check in RUN]).T
    base_T = score_KT[:2].mean(0)
    np.testing.assert_allclose(cells.get_array().reshape(score_KT.shape), 100 * (score_KT - base_T) / base_T)
    assert float(cells.norm(0.0)) == 0.5
    corners, sigmas = np.asarray(cells.get_coordinates()), np.array(RUN[0].curve.sigmas)
    np.testing.assert_allclose(corners[0, :, 0], [-50, 50, 153.5, 260.5])
    np.testing.assert_allclose(corners[1:-1, 0, 1], np.sqrt(sigmas[1:] * sigmas[:-1]))
    np.testing.assert_allclose(np.ravel(marks.get_data()), [100, RUN[1].verdict.peak_sigma])


@pytest.mark.parametrize("is_labelled", [True, False])
def test_peaks_are_drawn_over_the_steps_and_the_first_alarm_is_marked(is_labelled):
    """Of the accuracy, or without labels of the score; a run without an alarm has no mark."""
    history = RUN if is_labelled else [without_labels(check) for check in RUN]
    peaks = [100 * check.curve.peak_accuracy if is_labelled else max(check.curve.score.mean) for check in history]
    axes = plot_history([*history, history[-1]]).axes[2]
    assert axes.get_ylabel() == ("peak accuracy (%)" if is_labelled else "peak score")
    np.testing.assert_allclose(axes.get_lines()[0].get_data(), [[0, 100, 207, 207], [*peaks, peaks[-1]]])
    assert [text.xy[0] for text in axes.texts] == [207]
    assert not plot_history(history[:2]).axes[2].texts
