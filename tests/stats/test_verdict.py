"""The shapes of known curves."""

import math

import numpy as np
import pytest
import torch
from simulated import FALLING, HUMPED, RISING, SIGMAS, STD, USELESS, simulated_curve

from unimodal_monitor.stats.estimate import Curve
from unimodal_monitor.stats.max_t import rises
from unimodal_monitor.stats.verdict import Shape, judge


@pytest.mark.parametrize(
    ("mean", "num_images", "shape", "reason"),
    [
        (HUMPED, 2000, Shape.UNIMODAL, "rises by at least"),
        (FALLING, 2000, Shape.MONOTONE, "no level is above"),
        (RISING, 2000, Shape.UNDECIDED, "needs more noise"),
        (USELESS, 2000, Shape.UNDECIDED, "no information"),
        ((0.50, 0.50, 0.502, 0.506, 0.506, 0.45, 0.3, 0.2, 0.1), 40, Shape.UNDECIDED, "more images are needed"),
    ],
)
def test_shapes_are_given_with_their_reason(mean, num_images, shape, reason):
    verdict = judge(simulated_curve(mean, num_images=num_images))
    assert verdict.shape is shape
    assert reason in verdict.reason


def test_rise_and_peak_are_those_of_the_highest_interior_level():
    """The rise of 0.09 over a height of 0.3 is a share of 0.3."""
    curve = simulated_curve(HUMPED)
    verdict, found = judge(curve), rises(curve, curve.score, confidence=0.95)
    assert verdict.peak_sigma == curve.sigmas[5]
    assert verdict.height == pytest.approx(np.mean(curve.score.mean[:2]))
    shares = [float(row[:-1].max()) / verdict.height for row in (found.lower, found.rise, found.upper)]
    assert [verdict.rise_low, verdict.rise, verdict.rise_high] == pytest.approx(shares)
    assert verdict.rise_low < 0.3 < verdict.rise_high
    assert f"at least {verdict.rise_low:.1%}" in verdict.reason


@pytest.mark.parametrize("height", [-0.2, 0.0])
def test_a_height_that_is_not_positive_leaves_all_numbers_finite(height):
    score_KN = torch.tensor([[height, 0.0, 0.1, 0.0]]).T.expand(4, 50)
    curve = Curve.from_images("mid_block", torch.tensor([0.1, 0.2, 0.4, 0.8]), STD, score_KN=score_KN, score_name="q")
    verdict = judge(curve)
    assert verdict.shape is Shape.UNDECIDED
    assert verdict.rise == pytest.approx((0.1 - height) / (abs(height) or 1), rel=1e-6)
    assert all(map(math.isfinite, (verdict.rise_low, verdict.rise_high, verdict.p_value)))


def test_a_flat_then_falling_curve_is_hardly_ever_unimodal():
    """The highest level is anywhere, so that half of these have it in the interior."""
    flat = (0.5, 0.5, 0.5, 0.5, 0.5, 0.4, 0.3, 0.2, 0.1)
    assert Shape.UNIMODAL not in [judge(simulated_curve(flat, seed=seed)).shape for seed in range(20)]


def test_accuracy_can_be_judged_in_place_of_the_score_where_there_are_labels():
    verdict = judge(simulated_curve(HUMPED, num_images=5000), quantity="accuracy")
    assert (verdict.shape, verdict.quantity) == (Shape.UNIMODAL, "accuracy")
    with pytest.raises(ValueError, match="'score' or 'accuracy'"):
        judge(simulated_curve(HUMPED), quantity="loss")
    for num, words in ((3, "at least 4 noise levels"), (4, "needs labels")):
        curve = Curve.from_images("mid", SIGMAS[:num], STD, score_KN=torch.rand(num, 9), score_name="score")
        with pytest.raises(ValueError, match=words):
            judge(curve, quantity="accuracy")
