"""Per-image numbers become means, curves and estimates; these go through JSON."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp
from simulated import HUMPED, SIGMAS, simulated_curve, simulated_scores

from unimodal_monitor.stats.estimate import Curve, Estimate, LevelMeans, mean_estimate
from unimodal_monitor.stats.verdict import judge

GAP = Estimate("gap", "gap (model units)", (0.1, 0.2, 0.4), (0.3, 0.5, 0.4), (0.2, 0.1, 0.3), (0.4, 0.9, 0.5), 0.0)
EMPTY = Estimate("gap", "gap", (), (), (), ())
CURVE = simulated_curve(HUMPED)
UNLABELLED = Curve.from_images("mid_block", SIGMAS, 0.5, score_KN=torch.rand(9, 20), score_name="invariance")


def test_covariance_is_that_of_the_means_over_images():
    score_KN, _ = simulated_scores(HUMPED, num_images=50)
    means = LevelMeans.from_images("score", score_KN)
    np.testing.assert_allclose(means.mean, score_KN.mean(1))
    np.testing.assert_allclose(means.covariance, np.cov(score_KN) / 50)
    np.testing.assert_allclose(means.errors, score_KN.std(1) / 50**0.5)


def test_accuracy_is_the_share_of_correct_images():
    """Without labels there is none."""
    _, correct_KN = simulated_scores(HUMPED)
    np.testing.assert_allclose(CURVE.accuracy.mean, correct_KN.double().mean(1))
    assert (CURVE.peak_accuracy, CURVE.num_images) == (max(CURVE.accuracy.mean), 2000)
    assert UNLABELLED.accuracy is UNLABELLED.peak_accuracy is None


def test_the_sparkline_shows_peak_and_end():
    line = CURVE.sparkline()
    assert (len(line), line[5], line[-1]) == (9, "█", "▁")


@pytest.mark.parametrize("record", [CURVE, UNLABELLED, judge(CURVE), GAP, EMPTY])
def test_records_come_back_from_json_equal(record):
    assert record.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_a_value_that_is_not_finite_is_an_error():
    values_KN = torch.zeros(4, 5)
    values_KN[2, 3] = float("nan")
    with pytest.raises(FloatingPointError, match="score is not finite at 1 places"):
        LevelMeans.from_images("score", values_KN)


def test_a_mean_has_students_limits():
    score_KN, _ = simulated_scores(HUMPED, num_images=12)
    found = mean_estimate("score", "score", SIGMAS, score_KN, confidence=0.8, neutral=0.0)
    expected = ttest_1samp(score_KN, 0, axis=1).confidence_interval(0.8)
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high])
    np.testing.assert_allclose(found.value, score_KN.mean(1))
    assert found.sigmas == tuple(SIGMAS.tolist())


def test_the_headline_is_the_level_with_the_highest_lower_limit():
    assert GAP.headline == (0.4, 0.4, 0.3, 0.5)
    assert EMPTY.headline is None
