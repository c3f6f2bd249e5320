"""Both: two rules that speak together."""

import json
from dataclasses import replace

import pytest
from simulated import HUMPED
from test_alarm import Scripted
from test_gap_opened import look_with
from test_rules import LOWER, look_at

from unimodal_monitor.alarm.rules.base import Terms
from unimodal_monitor.alarm.rules.both import Both
from unimodal_monitor.alarm.rules.gap import GapOpened
from unimodal_monitor.alarm.rules.peak import PeakFell
from unimodal_monitor.alarm.rules.rise import RiseLost

ERROR = 1e-4


def with_gap(mean, gap, *, number=2):
    """A look with this curve, and pairs with this gap."""
    return replace(look_at(mean, number=number), pairs=look_with(gap).pairs)


@pytest.mark.parametrize(
    ("first", "second", "holds", "sentence", "note"),
    [
        ("x", "x", True, "said x and said x", ""),
        ("x", "-", False, "said x; said -", "said x"),
        ("u", "x", False, "said u; said x", "said x"),
        ("-", "u", False, "said -; said u", ""),
    ],
)
def test_it_speaks_where_both_do_at_one_check(first, second, holds, sentence, note):
    """What one says alone is told as a note; neither arms anything, nor establishes anew."""
    found = Both(Scripted(first), Scripted(second)).look(None, error=ERROR)
    assert (found.holds, found.sentence, found.note) == (holds, sentence, note)
    assert (found.is_established, found.reaches) == (False, False)


@pytest.mark.parametrize(("first", "second", "arms"), [("u", "u", True), ("u", "-", False), ("-", "u", False)])
def test_asked_to_it_arms_where_both_have_something_to_lose(first, second, arms):
    """And anew where both would be established anew."""
    both = Both(Scripted(first), Scripted(second), arms=True)
    found = both.look(None, error=ERROR)
    assert (found.is_established, found.reaches) == (arms, arms)


def test_one_check_after_the_other_is_not_together():
    """The first speaks at one check, the second at the next one."""
    both = Both(Scripted("x-x"), Scripted("-xx"))
    assert [both.look(None, error=ERROR).holds for _ in range(3)] == [False, False, True]


def test_each_rule_is_given_the_whole_error():
    """The joint statement is wrong only where both are."""
    first, second = Scripted("x"), Scripted("x")
    Both(first, second, share=0.5).look(None, error=0.02)
    assert first.errors == second.errors == [0.02]


def test_a_fallen_peak_and_an_open_gap_are_one_sentence():
    """And neither alone is said for both."""
    for mean, gap, holds in ((LOWER, 0.8, True), (LOWER, 0.0, False), (HUMPED, 0.8, False)):
        both = Both(PeakFell(), GapOpened())
        both.look(with_gap(HUMPED, 0.0, number=1), error=ERROR)
        found = both.look(with_gap(mean, gap), error=ERROR)
        assert found.holds is holds
        said = found.sentence if holds else found.note
        assert ("the peak fell from" in said) is (mean is LOWER)
        assert ("the denoising gap is" in said) is (gap > 0)


def test_it_goes_on_from_its_state():
    """As JSON; both rules remember what they compare with."""
    first, second = (Both(PeakFell(), RiseLost()) for _ in range(2))
    first.look(look_at(HUMPED, number=1), error=ERROR)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert first.first.reference is not None
    assert first.second.reference is not None
    assert second == first


def test_a_glance_leaves_it_to_full_checks():
    """Even where one of its rules would forecast."""
    both = Both(RiseLost(), PeakFell())
    both.look(look_at(HUMPED, number=1), error=ERROR)
    assert both.forecast(look_at(HUMPED), Terms(0.25, ERROR, 0.05)) is None


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused(share):
    """It is a part of the alarm's significance."""
    with pytest.raises(ValueError, match=f"share = {share}"):
        Both(PeakFell(), GapOpened(), share=share)
