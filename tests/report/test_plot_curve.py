"""The figure of a curve: what is drawn is what was measured."""

import numpy as np
from simulated import FALLING, HUMPED
from simulated_checks import simulated_check, without_labels

from unimodal_monitor.report.plot_curve import plot_curve

CHECK, MONOTONE = simulated_check(100, HUMPED, layers=5), simulated_check(0, FALLING)


def drawn(axes) -> dict[str, np.ndarray]:
    return {line.get_label(): np.asarray(line.get_ydata()) for line in axes.get_lines()}


def test_every_layer_is_drawn_against_sigma_under_step_and_verdict():
    """Accuracy in per cent and the score in its own unit. A peak is marked only where the curve is unimodal."""
    figure = plot_curve(CHECK)
    assert CHECK.verdict.reason in figure.get_suptitle()
    assert figure.get_suptitle().startswith("step 100: unimodal, generalizing")
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy (%)", "Brier gain"]
    assert all((axes.get_xlabel(), axes.get_xscale()) == ("sigma (data units)", "log") for axes in figure.axes)
    accuracy, score = map(drawn, figure.axes)
    for curve in CHECK.curves:
        label = f"{curve.layer} (judged)" if curve is CHECK.curve else curve.layer
        np.testing.assert_allclose(accuracy[label], 100 * np.array(curve.accuracy.mean))
        np.testing.assert_allclose(score[label], curve.score.mean)
    assert ["peak" in lines for lines in (accuracy, score, drawn(plot_curve(MONOTONE).axes[0]))] == [True, True, False]


def test_without_labels_the_score_stands_alone():
    """Earlier checks may have had labels, and the other way round."""
    (score,) = plot_curve(without_labels(CHECK), earlier=[CHECK]).axes
    np.testing.assert_allclose(drawn(score)[f"{CHECK.curve.layer} (judged)"], CHECK.curve.score.mean)
    assert len(plot_curve(CHECK, earlier=[without_labels(CHECK)]).axes) == 2
