"""Outcomes become curves; curves go through JSON."""

import json

import numpy as np
import pytest
import torch
from simulated import HUMPED, SIGMAS, STD, simulated_curve, simulated_outcomes

from unimodal_monitor.stats.estimate import Curve, Estimate


def test_covariance_is_that_of_the_means_over_images():
    """Draws of an image are averaged first: they are not independent images."""
    outcomes = simulated_outcomes(HUMPED, num_images=50, num_draws=3)
    estimate = Estimate.from_images("score", outcomes.score_KRM)
    values_KM = outcomes.score_KRM.double().mean(1).numpy()
    np.testing.assert_allclose(estimate.mean, values_KM.mean(1))
    np.testing.assert_allclose(estimate.covariance, np.cov(values_KM) / 50)
    np.testing.assert_allclose(estimate.errors, values_KM.std(1, ddof=1) / 50**0.5)


def test_accuracy_is_the_share_of_right_answers():
    """In the order of the levels."""
    outcomes = simulated_outcomes(HUMPED)
    curve = Curve.from_outcomes("mid_block", SIGMAS, STD, outcomes)
    np.testing.assert_allclose(curve.accuracy.mean, outcomes.correct_KRM.double().mean((1, 2)))


def test_a_curve_comes_back_from_json_equal():
    """To the last bit of every number."""
    curve = simulated_curve(HUMPED)
    assert Curve.from_dict(json.loads(json.dumps(curve.to_dict()))) == curve


def test_a_score_that_is_not_finite_is_an_error():
    """No curve carries a NaN."""
    values = torch.zeros(4, 1, 5)
    values[2, 0, 3] = float("nan")
    with pytest.raises(FloatingPointError, match="at 1 places"):
        Estimate.from_images("score", values)


def test_the_sparkline_shows_peak_and_end():
    """The highest level is a full block, the lowest the smallest."""
    line = simulated_curve(HUMPED).sparkline()
    assert len(line) == 9
    assert line[5] == "█"
    assert line[-1] == "▁"
