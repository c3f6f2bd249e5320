"""What a curve of known shape is called."""

import json

import pytest
from simulated import FALLING, HUMPED, RISING, USELESS, simulated_curve

from unimodal_monitor.stats.verdict import Shape, Verdict, judge


@pytest.mark.parametrize(
    ("mean", "num_images", "shape", "reason"),
    [
        (HUMPED, 2000, Shape.UNIMODAL, "rises by at least"),
        (FALLING, 2000, Shape.MONOTONE, "no level is higher"),
        (RISING, 2000, Shape.UNDECIDED, "needs more noise"),
        (USELESS, 2000, Shape.UNDECIDED, "no better than the class frequencies"),
        ((0.50, 0.50, 0.502, 0.506, 0.506, 0.45, 0.3, 0.2, 0.1), 40, Shape.UNDECIDED, "more images would tell"),
    ],
)
def test_shapes_are_told_with_their_reason(mean, num_images, shape, reason):
    """Humps, falls, rises, probes that know nothing, and too few images."""
    verdict = judge(simulated_curve(mean, num_images=num_images))
    assert verdict.shape is shape
    assert reason in verdict.reason


def test_rise_and_peak_are_those_of_the_highest_interior_level():
    """Within the limits that the verdict itself gives."""
    curve = simulated_curve(HUMPED)
    verdict = judge(curve)
    assert verdict.peak_sigma == curve.sigmas[5]
    assert verdict.rise_low < 0.09 < verdict.rise_high
    assert verdict.rise_low < verdict.rise < verdict.rise_high


def test_accuracy_can_be_judged_in_place_of_the_score():
    """With more error, as the replication has it."""
    verdict = judge(simulated_curve(HUMPED, num_images=5000), quantity="accuracy")
    assert verdict.shape is Shape.UNIMODAL
    assert verdict.quantity == "accuracy"


@pytest.mark.parametrize("seed", range(20))
def test_a_flat_then_falling_curve_is_hardly_ever_unimodal(seed):
    """The naive rule calls half of these unimodal: their highest level is anywhere."""
    flat = (0.5, 0.5, 0.5, 0.5, 0.5, 0.4, 0.3, 0.2, 0.1)
    assert judge(simulated_curve(flat, seed=seed)).shape is not Shape.UNIMODAL


def test_a_verdict_comes_back_from_json_equal():
    """Shape included."""
    verdict = judge(simulated_curve(HUMPED))
    assert Verdict.from_dict(json.loads(json.dumps(verdict.to_dict()))) == verdict


def test_what_cannot_be_judged_is_refused():
    """An unknown quantity is told."""
    with pytest.raises(ValueError, match="'score' or 'accuracy'"):
        judge(simulated_curve(HUMPED), quantity="loss")
