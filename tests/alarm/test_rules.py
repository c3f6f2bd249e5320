"""What each rule finds in checks of known truth: its tests are scipy's, and its errors are as rare as promised."""

import json
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp, ttest_rel
from simulated import FALLING, FLAT, HUMPED, LOWER, RISING, SIGMAS, SLIGHTLY_LOWER, STD, USELESS, simulated_check

from unimodal_monitor import Curve, GapOpened, PeakFell, RiseLost, judge
from unimodal_monitor.alarm.rule import Reference
from unimodal_monitor.stats.max_t import low_end

ALPHA, K = 1e-4, len(SIGMAS)
PEAK, SETS = PeakFell(min_gap=None), ("heldout", "members", "memorizer")


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
    reference = found.reference
    assert (found.triggered, found.reaches, reference.step) == (False, True, 10)
    assert Reference.from_dict(json.loads(json.dumps(asdict(reference)))) == reference
    level = SIGMAS.tolist().index(reference.sigma)
    low_M = measured.judged_score[: low_end(measured)].mean(0) if isinstance(rule, RiseLost) else 0.0
    np.testing.assert_allclose(reference.values, measured.judged_score[level] - low_M)
    with pytest.raises(ValueError, match="the reference is of 2000 images, this check of 500"):
        last_finding(rule, measured, simulated_check(num_images=500))


@pytest.mark.parametrize("mean", [FLAT, FALLING, RISING, USELESS], ids=["flat", "falling", "rising", "useless"])
def test_no_rise_is_established_where_there_is_none(mean):
    """A curve that only rises has no interior peak, and a useless probe no height to compare with."""
    found = after_curves(RiseLost(), mean)
    assert (found.triggered, found.is_established, found.reaches, found.reference) == (False, False, False, None)


def test_a_rise_is_the_share_of_the_height_that_the_verdict_reports():
    measured = simulated_check(HUMPED)
    found = last_finding(RiseLost(), measured)
    curve = Curve.from_images("mid_block", SIGMAS, STD, score_KN=measured.score["mid_block"], score_name="Brier gain")
    assert found.reference.mean / found.reference.height == pytest.approx(judge(curve).rise)
    assert f"a rise of {judge(curve).rise:.1%} of the curve's height" in found.sentence


@pytest.mark.parametrize(
    ("rule", "mean", "triggered"),
    [
        (RiseLost(), FLAT, True),
        (RiseLost(), HALF, False),
        (RiseLost(lost_fraction=0.98), HALF, True),
        (PEAK, LOWER, True),
        (PEAK, SLIGHTLY_LOWER, False),
        (PeakFell(min_fall=0.19, min_gap=None), LOWER, False),
    ],
)
def test_a_loss_is_reported_where_significantly_less_than_the_mark_is_left(rule, mean, triggered):
    found = after_curves(rule, HUMPED, mean)
    assert (found.triggered, "significantly" in found.sentence) == (triggered, triggered)
    assert "step 10" in found.sentence


def test_a_higher_rise_becomes_the_reference_and_a_lower_one_does_not():
    found = after_curves(RiseLost(), HUMPED, rise_times(1.7), LOWER)
    assert (found.reaches, found.reference.step) == (True, 20)


@pytest.mark.parametrize("seed", range(5))
def test_a_rise_is_established_by_scipys_paired_tests_at_one_of_the_interior_levels(seed):
    """Against the low-noise end and the highest level, each with half of alpha over the levels."""
    measured = simulated_check(HUMPED, num_images=150, seed=seed)
    score_KM, pooled = measured.judged_score, low_end(measured)
    low_M, interior_KM = score_KM[:pooled].mean(0), score_KM[pooled:-1]
    p_values = [ttest_rel(interior_KM, other, axis=1, alternative="greater").pvalue for other in (low_M, score_KM[-1:])]
    turns_at = 2 * len(interior_KM) * np.maximum(*p_values).min()
    rule = RiseLost(min_rise=0.0)
    assert_turns_at(lambda alpha: last_finding(rule, measured, alpha=alpha).reaches, turns_at)


@pytest.mark.parametrize("number", [2, 7])
@pytest.mark.parametrize(("rule", "mean"), [(RiseLost(), FLAT), (PEAK, LOWER)], ids=["rise", "peak"])
def test_a_loss_is_scipys_paired_test_at_all_levels_corrected_for_the_choice_of_the_reference(rule, mean, number):
    """The largest p-value of the levels, times the levels of all earlier checks; losing a rise has half of alpha."""
    before, after = simulated_check(HUMPED, seed=0, num_images=300), simulated_check(mean, seed=1, num_images=300)
    values_KM, mark, halves, reference = after.judged_score, 0.95, 1, last_finding(rule, before, alpha=0.9).reference
    if rule != PEAK:
        pooled, mark, halves = low_end(after), 0.5, 2
        values_KM = values_KM[pooled:-1] - values_KM[:pooled].mean(0)
    differences_KM = values_KM - mark * np.array(reference.values)
    p_value = ttest_1samp(differences_KM, 0, axis=1, alternative="less").pvalue.max()
    test = partial(rule.test, after, reference, number=number, step=20)
    assert_turns_at(lambda alpha: test(alpha=alpha).triggered, halves * len(values_KM) * (number - 1) * p_value)


def test_a_rise_that_is_none_is_established_as_seldom_as_promised():
    checks, rule = (simulated_check(FLAT, num_images=200, seed=seed) for seed in range(800)), RiseLost(min_rise=0.0)
    assert_rare([last_finding(rule, measured, alpha=0.4).reaches for measured in checks], 0.2, at_least=0.3)


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
    """Whatever the score does, also at another number of images; without labels the invariance is the score."""
    means = (FALLING, SLIGHTLY_LOWER, LOWER)
    scores = [simulated_check(mean, num_images=700, seed=seed) for seed, mean in enumerate(means)]
    other = simulated_check(RISING if labelled else None)
    checks = [replace(other, invariance=measured.score["mid_block"]) for measured in scores]
    rules = [PeakFell(signal, min_fall=0.005, min_gap=None) for signal in ("invariance", "score")]
    found, expected = last_finding(rules[0], *checks), last_finding(rules[1], *scores)
    assert found.triggered
    assert replace(found, sentence="") == replace(expected, sentence="")
    assert found.sentence == expected.sentence.replace("peak of the score", "invariance of the features")
    if not labelled:
        assert last_finding(rules[1], *checks) == expected


def test_an_invariance_that_was_not_measured_is_no_peak():
    rule = PeakFell("invariance", min_gap=None)
    had = simulated_check(invariance=FALLING)
    found = last_finding(rule, had, simulated_check())
    assert (found.triggered, found.is_established, found.reaches) == (False, False, False)
    assert "not measured" in found.sentence
    assert last_finding(rule, had, simulated_check(), simulated_check(invariance=LOWER)).triggered


def test_a_fall_with_an_open_gap_is_both_tested_with_the_whole_alpha():
    """The conjunction turns at the larger of the two p-values (intersection-union test)."""
    before, after = (simulated_check(mean, gap=0.25, num_images=300, seed=1) for mean in (HUMPED, LOWER))
    options = {"reference": last_finding(PEAK, before).reference, "number": 2, "step": 20}
    for alpha in np.geomspace(1e-12, 0.5, 60).tolist():
        fell, is_open, both = (rule.test(after, alpha=alpha, **options) for rule in (PEAK, GapOpened(), PeakFell()))
        assert both.triggered is (fell.triggered and is_open.triggered)
        assert both.reaches is (fell.reaches and is_open.reaches)


def test_one_level_of_nine_is_enough_and_is_named():
    measured = simulated_check(gap=[0.8 if level == 4 else 0.0 for level in range(K)])
    heldout, members, memorizer = (float(getattr(measured, f"{of}_error")[4].mean()) for of in SETS)
    share = (heldout - members) / (heldout - memorizer)
    found = last_finding(GapOpened(), measured)
    assert (found.triggered, found.is_established, found.reaches) == (True, True, False)
    assert f"is {share:.0%} of the memorizer's at sigma {SIGMAS[4]:.3g}, significantly over 10%" in found.sentence
    closed = last_finding(GapOpened(), simulated_check(gap=0.0))
    assert (closed.triggered, closed.is_established, closed.reaches) == (False, True, True)


@pytest.mark.parametrize("min_gap", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_an_open_gap_is_scipys_paired_test_corrected_for_the_levels(min_gap, seed):
    measured = simulated_check(gap=0.4, seed=seed)
    heldout_KP = measured.heldout_error.numpy()
    mark_KP = heldout_KP - min_gap * (heldout_KP - measured.memorizer_error.numpy())
    p_value_K = ttest_rel(mark_KP, measured.members_error.numpy(), axis=1, alternative="greater").pvalue
    rule = GapOpened(min_gap)
    assert_turns_at(lambda alpha: last_finding(rule, measured, alpha=alpha).triggered, K * p_value_K.min())


@pytest.mark.parametrize("num_pairs", [20, 130])
def test_a_gap_at_the_mark_is_called_open_as_seldom_as_promised(num_pairs):
    """At exactly `min_gap` at every level, the worst of all truths."""
    checks = (simulated_check(gap=0.3, num_images=2, num_pairs=num_pairs, seed=seed) for seed in range(250))
    triggers = [last_finding(GapOpened(0.3), measured, alpha=0.1).triggered for measured in checks]
    assert_rare(triggers, 0.1, at_least=0.5)


def test_a_gap_that_was_not_measured_or_cannot_be_trusted_is_not_open():
    spoiled = simulated_check(gap=0.8)
    spoiled.members_error[0, 0] = torch.nan
    darker = replace(simulated_check(gap=0.8), shift="held-out images are darker")
    for found in (last_finding(GapOpened(), measured) for measured in (simulated_check(), darker, spoiled)):
        assert (found.triggered, found.is_established, found.reaches) == (False, False, False)
        assert "not measured, or cannot be trusted" in found.sentence
    useless_memorizer = replace(darker, shift=None, heldout_error=darker.memorizer_error - 0.1)
    assert "not defined at any level" in last_finding(GapOpened(), useless_memorizer).sentence


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RiseLost(lost_fraction=1.0), "lost_fraction = 1.0"),
        (lambda: RiseLost(min_rise=-0.1), "min_rise = -0.1"),
        (lambda: RiseLost(share=0.0), "share = 0.0"),
        (lambda: PeakFell("accuracy"), "signal = 'accuracy'"),
        (lambda: PeakFell(min_fall=1.0), "min_fall = 1.0"),
        (lambda: PeakFell(min_gap=1.0), "min_gap = 1.0"),
        (lambda: PeakFell(share=np.nan), "share = nan"),
        (lambda: GapOpened(min_gap=-0.1), "min_gap = -0.1"),
        (lambda: GapOpened(min_gap=np.nan), "min_gap = nan"),
        (lambda: GapOpened(share=1.1), "share = 1.1"),
    ],
)
def test_an_argument_out_of_range_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
