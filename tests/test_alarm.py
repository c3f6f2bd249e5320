"""Sequences of verdicts and the states they lead to."""

import json

import pytest
from simulated import FALLING, made_verdict, simulated_curve

from unimodal_monitor.alarm import Alarm, AlarmState
from unimodal_monitor.verdict import Shape, Verdict, judge

UP = made_verdict(Shape.UNIMODAL, 0.10)
SMALLER = made_verdict(Shape.UNIMODAL, 0.06)
TINY = made_verdict(Shape.UNIMODAL, 0.02, error=0.005)
UNSURE = made_verdict(Shape.UNDECIDED, 0.04, error=0.05)
GONE = made_verdict(Shape.MONOTONE, -0.01)
HALF_GONE = made_verdict(Shape.UNDECIDED, 0.03)
U, A, R = AlarmState.UNARMED, AlarmState.ARMED, AlarmState.RAISED


@pytest.mark.parametrize(
    ("verdicts", "states"),
    [
        ([GONE, GONE, UNSURE, HALF_GONE], [U, U, U, U]),
        ([UNSURE, UP, UP], [U, A, A]),
        ([UP, GONE, GONE], [A, A, R]),
        ([UP, GONE, UP, GONE, GONE], [A, A, A, A, R]),
        ([UP, GONE, UNSURE, GONE, GONE], [A, A, A, A, R]),
        ([UP, HALF_GONE, HALF_GONE], [A, A, R]),
        ([UP, TINY, TINY], [A, A, R]),
        ([UP, SMALLER, SMALLER], [A, A, A]),
        ([SMALLER, UP, HALF_GONE, HALF_GONE], [A, A, A, R]),
        ([UP, GONE, GONE, TINY], [A, A, R, R]),
        ([UP, GONE, GONE, UNSURE], [A, A, R, R]),
        ([UP, GONE, GONE, SMALLER], [A, A, R, A]),
        ([UP, GONE, GONE, UP, GONE, GONE], [A, A, R, A, A, R]),
    ],
    ids=[
        "nothing to lose",
        "arms on the first sure rise",
        "raised when lost twice",
        "a rise in between starts the count anew",
        "an unsure check starts the count anew",
        "under half is lost, whatever the shape",
        "a sure but tiny rise is lost as well",
        "over half is not lost",
        "the largest rise counts",
        "a tiny rise does not lower it",
        "an unsure check does not lower it",
        "a rise over the mark lowers it",
        "raised a second time",
    ],
)
def test_verdicts_lead_to_states(verdicts, states):
    """With a patience of two and half the rise as mark."""
    alarm = Alarm()
    assert [alarm.update(verdict) for verdict in verdicts] == states


@pytest.mark.parametrize("patience", [1, 3])
def test_patience_counts_consecutive_lost_checks(patience):
    """Raised at the `patience`-th of them and not before."""
    alarm = Alarm(patience=patience)
    states = [alarm.update(verdict) for verdict in [UP, *[GONE] * patience]]
    assert states == [A] * patience + [R]


def test_lost_fraction_sets_the_mark():
    """The upper limit 0.07 of a rise is under 90 % of 0.10 and over 50 % of it."""
    for lost_fraction, state in ((0.5, A), (0.9, R)):
        alarm = Alarm(patience=1, lost_fraction=lost_fraction)
        alarm.update(UP)
        assert alarm.update(SMALLER) is state


def test_monotone_curves_never_arm_it():
    """A network that only ever memorizes has nothing to lose."""
    alarm = Alarm()
    verdicts = [judge(simulated_curve(FALLING, num_images=num, seed=num)) for num in (50, 100, 200, 400, 800, 1600)]
    assert {alarm.update(verdict) for verdict in verdicts} == {U}


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_resumed_alarm_goes_on_as_if_never_stopped(cut):
    """The state passes through JSON, as through a checkpoint."""
    verdicts = [UP, GONE, UNSURE, GONE, GONE, SMALLER]
    whole, first, second = Alarm(), Alarm(), Alarm()
    expected = [whole.update(verdict) for verdict in verdicts]
    found = [first.update(verdict) for verdict in verdicts[:cut]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert found + [second.update(verdict) for verdict in verdicts[cut:]] == expected
    assert second == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patience": 0}, "patience = 0"),
        ({"lost_fraction": 0.0}, "lost_fraction = 0.0"),
        ({"lost_fraction": 1.0}, "lost_fraction = 1.0"),
        ({"lost_fraction": float("nan")}, "lost_fraction = nan"),
    ],
)
def test_an_argument_out_of_range_is_refused(arguments, message):
    """The error names the argument and what came."""
    with pytest.raises(ValueError, match=message):
        Alarm(**arguments)


def explained(*verdicts: Verdict) -> str:
    alarm = Alarm()
    for verdict in verdicts:
        alarm.update(verdict)
    return alarm.explain(verdicts[-1])


def test_the_state_is_explained_by_its_figures():
    """Unarmed, armed, raised, and raised while the last check tells nothing."""
    assert explained(GONE) == "no surely unimodal curve yet"
    assert explained(UP, SMALLER) == "the rise stands at 60% of the 0.1 established"
    raised = "the rise was 0.1 and is now 0.03, surely under 0.04: lost for 2 checks"
    assert explained(UP, GONE, HALF_GONE) == raised
    assert explained(UP, GONE, GONE, UNSURE) == "the rise of 0.1 was lost and is not surely back: it is now 0.04"
