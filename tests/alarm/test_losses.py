"""What the features have lost, in checks of known truth: the tests are scipy's, and errors as rare as promised."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_rel
from simulated import FALLING, FLAT, HUMPED, LOWER, RISING, SIGMAS, SLIGHTLY_LOWER, STD, USELESS, simulated_check

from unimodal_monitor import Curve, PeakFell, RiseLost, judge
from unimodal_monitor.alarm.rule import Reference
from unimodal_monitor.stats.max_t import low_end

ALPHA, K = 1e-4, len(SIGMAS)
PEAK = PeakFell()


def rise_times(share):
    return (*HUMPED[:2], *(0.30 + share * (value - 0.30) for value in HUMPED[2:7]), *HUMPED[7:])


HALF = rise_times(0.5)


def last_finding(rule, *checks, alpha=ALPHA):
    """The finding at the last of these checks, each of which gets the reference of the one before."""
    reference = None
    for number, measured in enumerate(checks, 1):
        found = rule.test(measured, reference, number=number, step=10 * number, alpha=alpha)
        reference = found.reference
    return found


def after_curves(rule, *means, alpha=ALPHA):
    return last_finding(rule, *(simulated_check(mean, seed=seed) for seed, mean in enumerate(means)), alpha=alpha)


def assert_turns_at(is_significant, alpha):
    """It is significant for a little more than this alpha, and not for a little less."""
    assert 1e-14 < alpha < 0.9
    assert is_significant(1.001 * alpha)
    assert not is_significant(0.999 * alpha)


def assert_rare(triggers, alpha, *, at_least=0.0):
    """The share of false triggers is at most alpha, up to three standard errors of the simulation."""
    share = np.mean(triggers)
    assert at_least * alpha <= share < alpha + 3 * (alpha * (1 - alpha) / len(triggers)) ** 0.5


@pytest.mark.parametrize("rule", [RiseLost(), PEAK])
def test_the_first_check_becomes_a_reference_which_survives_json(rule):
    measured = simulated_check(HUMPED)
    found = last_finding(rule, measured, alpha=0.5)
    reference = Reference(**found.reference)
    assert (found.triggered, reference.step) == (False, 10)
    again, options = json.loads(json.dumps(found.reference)), {"number": 2, "step": 20, "alpha": 0.5}
    found = [rule.test(measured, record, **options) for record in (again, found.reference)]
    assert found[0].sentence == found[1].sentence
    level = SIGMAS.tolist().index(reference.sigma)
    low_M = measured.judged_score[: low_end(measured)].mean(0) if isinstance(rule, RiseLost) else 0.0
    np.testing.assert_allclose(reference.values, measured.judged_score[level] - low_M)
    with pytest.raises(ValueError, match="the reference is of 2000 images, this check of 500"):
        last_finding(rule, measured, simulated_check(num_images=500))


@pytest.mark.parametrize("mean", [FLAT, FALLING, RISING, USELESS], ids=["flat", "falling", "rising", "useless"])
def test_no_rise_is_established_where_there_is_none(mean):
    """A curve that only rises has no interior peak, and a useless probe no height to compare with."""
    found = after_curves(RiseLost(), mean)
    assert (found.triggered, found.reference) == (False, None)


def test_a_rise_is_the_share_of_the_height_that_the_verdict_reports():
    measured = simulated_check(HUMPED)
    found = last_finding(RiseLost(), measured)
    curve = Curve.from_images("mid_block", SIGMAS, STD, score_KN=measured.score["mid_block"], score_name="Brier gain")
    reference = Reference(**found.reference)
    assert reference.mean / reference.height == pytest.approx(judge(curve).rise)
    assert f"a rise of {judge(curve).rise:.1%} of the curve's height" in found.sentence


@pytest.mark.parametrize(
    ("rule", "mean", "triggered"),
    [
        (RiseLost(), FLAT, True),
        (RiseLost(), HALF, False),
        (RiseLost(lost_fraction=0.98), HALF, True),
        (PEAK, LOWER, True),
        (PEAK, SLIGHTLY_LOWER, False),
        (PeakFell(min_fall=0.19), LOWER, False),
    ],
)
def test_a_loss_is_reported_where_significantly_less_than_the_mark_is_left(rule, mean, triggered):
    found = after_curves(rule, HUMPED, mean)
    assert (found.triggered, "significantly" in found.sentence) == (triggered, triggered)
    assert "step 10" in found.sentence


def test_a_higher_rise_becomes_the_reference_and_a_lower_one_does_not():
    found = after_curves(RiseLost(), HUMPED, rise_times(1.7), LOWER)
    assert found.reference["step"] == 20


@pytest.mark.parametrize("seed", range(5))
def test_a_rise_is_established_by_scipys_paired_tests_at_one_of_the_interior_levels(seed):
    """Against the low-noise end and the highest level, each with half of alpha over the levels."""
    measured = simulated_check(HUMPED, num_images=150, seed=seed)
    score_KM, pooled = measured.judged_score, low_end(measured)
    low_M, interior_KM = score_KM[:pooled].mean(0), score_KM[pooled:-1]
    p_values = [ttest_rel(interior_KM, other, axis=1, alternative="greater").pvalue for other in (low_M, score_KM[-1:])]
    turns_at = 2 * len(interior_KM) * np.maximum(*p_values).min()
    rule = RiseLost(min_rise=0.0)
    assert_turns_at(lambda alpha: last_finding(rule, measured, alpha=alpha).reference is not None, turns_at)


@pytest.mark.parametrize("number", [2, 7])
@pytest.mark.parametrize(("rule", "mean"), [(RiseLost(), FLAT), (PEAK, LOWER)], ids=["rise", "peak"])
def test_a_loss_is_scipys_paired_test_at_all_levels_corrected_for_the_choice_of_the_reference(rule, mean, number):
    """The largest p-value of the levels, times the levels of all earlier checks; losing a rise has half of alpha."""
    before, after = simulated_check(HUMPED, seed=0, num_images=300), simulated_check(mean, seed=1, num_images=300)
    values_KM, mark, halves, reference = after.judged_score, 0.95, 1, last_finding(rule, before, alpha=0.9).reference
    if rule != PEAK:
        pooled, mark, halves = low_end(after), 0.5, 2
        values_KM = values_KM[pooled:-1] - values_KM[:pooled].mean(0)
    differences_KM = values_KM - mark * np.array(reference["values"])
    p_value = ttest_1samp(differences_KM, 0, axis=1, alternative="less").pvalue.max()
    test = partial(rule.test, after, reference, number=number, step=20)
    assert_turns_at(lambda alpha: test(alpha=alpha).triggered, halves * len(values_KM) * (number - 1) * p_value)


def test_a_rise_that_is_none_is_established_as_seldom_as_promised():
    checks, rule = (simulated_check(FLAT, num_images=200, seed=seed) for seed in range(800)), RiseLost(min_rise=0.0)
    found = [last_finding(rule, measured, alpha=0.4).reference is not None for measured in checks]
    assert_rare(found, 0.2, at_least=0.3)


@pytest.mark.parametrize(("rule", "mean"), [(RiseLost(), HALF), (PEAK, tuple(0.95 * value for value in HUMPED))])
def test_what_is_exactly_at_the_mark_is_lost_as_seldom_as_promised(rule, mean):
    """The worst of all truths; the share is far below alpha, since all levels must fall below any of the references."""
    befores, afters = (
        [simulated_check(values, num_images=200, seed=2 * seed + number) for seed in range(300)]
        for number, values in enumerate((HUMPED, mean))
    )
    triggers = [last_finding(rule, *run, alpha=0.6).triggered for run in zip(befores, afters, strict=True)]
    assert_rare(triggers, 0.3)


@pytest.mark.parametrize("labelled", [True, False])
def test_the_invariance_is_tested_as_the_score_is(labelled):
    """Whatever the score does, also at another number of images; without labels there is no score to test."""
    means = (FALLING, SLIGHTLY_LOWER, LOWER)
    scores = [simulated_check(mean, num_images=700, seed=seed) for seed, mean in enumerate(means)]
    other = simulated_check(RISING if labelled else None)
    checks = [replace(other, invariance=measured.score["mid_block"]) for measured in scores]
    rules = [PeakFell(signal, min_fall=0.005) for signal in ("invariance", "score")]
    found, expected = last_finding(rules[0], *checks), last_finding(rules[1], *scores)
    assert found.triggered
    assert replace(found, sentence="") == replace(expected, sentence="")
    assert found.sentence == expected.sentence.replace("peak of the score", "invariance of the features")
    if not labelled:
        assert not any(last_finding(rule, *checks).is_tested for rule in (rules[1], RiseLost()))


def test_an_invariance_that_was_not_measured_is_no_peak():
    rule = PeakFell("invariance")
    had = simulated_check(invariance=FALLING)
    found = last_finding(rule, had, simulated_check())
    assert (found.triggered, found.is_tested) == (False, False)
    assert "not measured" in found.sentence
    assert last_finding(rule, had, simulated_check(), simulated_check(invariance=LOWER)).triggered


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RiseLost(lost_fraction=1.0), "lost_fraction = 1.0"),
        (lambda: RiseLost(min_rise=-0.1), "min_rise = -0.1"),
        (lambda: PeakFell("accuracy"), "signal = 'accuracy'"),
        (lambda: PeakFell(min_fall=1.0), "min_fall = 1.0"),
    ],
)
def test_an_argument_out_of_range_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
