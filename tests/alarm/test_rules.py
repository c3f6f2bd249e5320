"""What each rule says of curves of known truth."""

import json
from dataclasses import replace

import numpy as np
import pytest
from simulated import FALLING, HUMPED, RISING, SIGMAS, STD, USELESS, simulated_outcomes

from unimodal_monitor.alarm.rules.base import Look
from unimodal_monitor.alarm.rules.cleanliness import CleanlinessFell
from unimodal_monitor.alarm.rules.peak import PeakFell
from unimodal_monitor.alarm.rules.rise import RiseLost
from unimodal_monitor.stats.estimate import Curve

ERROR = 1e-4
FLAT = (0.30, 0.30, 0.30, 0.30, 0.30, 0.29, 0.25, 0.20, 0.10)
LOWER = tuple(0.8 * value for value in HUMPED)
SLIGHTLY_LOWER = tuple(0.97 * value for value in HUMPED)


def look_at(mean, *, number=2, step=None, num_images=2000, seed=0, pairs=None):
    outcomes = simulated_outcomes(mean, num_images=num_images, seed=seed)
    curve = Curve.from_outcomes("mid_block", SIGMAS, STD, outcomes)
    score_KM = outcomes.score_KRM.double().mean(1).numpy()
    return Look(number, 10 * number if step is None else step, curve, score_KM, None, pairs)


def last_finding(rule, *means, **options):
    for number, mean in enumerate(means, 1):
        found = rule.look(look_at(mean, number=number, **options), error=ERROR)
    return found


@pytest.mark.parametrize("rule", [RiseLost, PeakFell])
def test_a_rule_goes_on_from_its_state(rule):
    """Saved between the checks, as JSON, the verdict is the same."""
    first, second = rule(), rule()
    first.look(look_at(HUMPED, number=1), error=ERROR)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second == first
    found = [one.look(look_at(FLAT), error=ERROR) for one in (first, second)]
    assert found[0] == found[1]
    assert found[0].holds


@pytest.mark.parametrize("rule", [RiseLost, PeakFell])
def test_nothing_is_lost_before_something_was_had(rule):
    """The first check cannot hold."""
    assert not last_finding(rule(), FALLING).holds


@pytest.mark.parametrize("mean", [FLAT, FALLING, RISING, USELESS], ids=["flat", "falling", "rising", "useless"])
def test_no_rise_is_established_where_there_is_none(mean):
    """A curve that only rises has no interior peak; a useless probe has no scale."""
    found = last_finding(RiseLost(), mean)
    assert not found.is_established
    assert not found.reaches
    assert "no rise" in found.sentence


def test_a_lost_rise_is_lost_and_says_since_when():
    """The reference is the first check, at one of its two highest levels."""
    rule = RiseLost()
    found = last_finding(rule, HUMPED, FLAT)
    assert found.holds
    assert rule.reference.step == 10
    assert rule.reference.sigma in SIGMAS[4:6].tolist()
    assert rule.reference.mean == pytest.approx(0.09, abs=0.02)
    assert "(step 10, sigma 0.296) and is now" in found.sentence
    assert "less than 50%" in found.sentence


def test_an_established_rise_is_told_when_it_is():
    """With its size and its level; later by how much of it stands."""
    rule = RiseLost()
    assert "a rise of 0.0878 at sigma 0.296 is established" in last_finding(rule, HUMPED).sentence
    assert "stands at 100% of the 0.0878 (step 10, sigma 0.296)" in last_finding(RiseLost(), HUMPED, HUMPED).sentence


def test_a_rise_that_stays_is_not_lost():
    """Nor one that falls to 80 %."""
    assert not last_finding(RiseLost(), HUMPED, HUMPED).holds
    assert not last_finding(RiseLost(), HUMPED, LOWER).holds


def test_the_mark_is_a_part_of_the_largest_rise():
    """80 % of the rise is lost under a mark of 95 %, for the same images."""
    assert last_finding(RiseLost(lost_fraction=0.95), HUMPED, tuple(0.6 * value for value in HUMPED)).holds


def test_a_higher_rise_becomes_the_reference_and_a_lower_one_does_not():
    """By the lower limit of the rise."""
    higher = (*HUMPED[:4], 0.45, 0.46, *HUMPED[6:])
    rule = RiseLost()
    assert last_finding(rule, HUMPED, higher, LOWER).reaches
    assert rule.reference.step == 20


def test_a_fallen_peak_is_told_with_its_size():
    """A fall by 20 % is more than 5 %; a fall by 3 % is not."""
    found = last_finding(PeakFell(), HUMPED, LOWER)
    assert found.holds
    assert "surely by more than 5%" in found.sentence
    assert not last_finding(PeakFell(), HUMPED, SLIGHTLY_LOWER).holds
    assert last_finding(PeakFell(min_fall=0.0), HUMPED, SLIGHTLY_LOWER).holds


def test_a_rise_at_exactly_half_is_lost_as_seldom_as_promised():
    """2,000 pairs of checks at the mark itself, the worst of all truths: at most the error, and not nothing."""
    half = (*HUMPED[:2], *(0.30 + 0.5 * (value - 0.30) for value in HUMPED[2:6]), *HUMPED[6:])
    held = 0
    for seed in range(2000):
        rule = RiseLost()
        rule.look(look_at(HUMPED, number=1, num_images=300, seed=2 * seed), error=0.6)
        held += rule.look(look_at(half, number=2, num_images=300, seed=2 * seed + 1), error=0.6).holds
    assert held / 2000 < 0.3


def test_the_cleanliness_is_judged_as_a_peak_is():
    """By a curve of its own, whatever the probe's does; at other numbers of images."""
    rule, peak = CleanlinessFell(), PeakFell(min_fall=0.005)
    for number, clean in enumerate((FALLING, SLIGHTLY_LOWER, LOWER), 1):
        look = look_at(clean, number=number, num_images=700)
        with_probe = replace(look_at(RISING, number=number), cleanliness_KN=look.score_KM)
        found, expected = rule.look(with_probe, error=ERROR), peak.look(look, error=ERROR)
        assert found == replace(expected, sentence=found.sentence)
        assert found.sentence == expected.sentence.replace("the peak", "the cleanliness of the features")
    assert found.holds
    assert found.sentence.endswith("surely by more than 0.5%")


def test_cleanliness_that_was_not_measured_says_so():
    """Where the held-out images are too few, or the witnesses turned off."""
    found = CleanlinessFell().look(look_at(HUMPED), error=ERROR)
    assert (found.holds, found.is_established) == (False, False)
    assert "not measured" in found.sentence


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RiseLost(lost_fraction=1.0), "lost_fraction = 1.0"),
        (lambda: RiseLost(min_rise=-0.1), "min_rise = -0.1"),
        (lambda: RiseLost(share=0.0), "share = 0.0"),
        (lambda: PeakFell(min_fall=1.0), "min_fall = 1.0"),
        (lambda: PeakFell(share=np.nan), "share = nan"),
        (lambda: CleanlinessFell(min_fall=-0.1), "min_fall = -0.1"),
    ],
)
def test_an_argument_out_of_range_is_refused(make, message):
    """The error names the argument and what came."""
    with pytest.raises(ValueError, match=message):
        make()
