"""What follows a check: once for each time that the alarm is raised."""

import pytest
from simulated import HUMPED, made_verdict, simulated_curve

from unimodal_monitor import AlarmState, Check, Shape
from unimodal_monitor.reaction import Reaction

W, G, N, M, C = AlarmState  # warming up, generalizing, onset, memorizing, copying
CURVES, VERDICT = (simulated_curve(HUMPED),), made_verdict(Shape.UNIMODAL, 0.3)


def history_of(states):
    return [Check(10 * n, CURVES, VERDICT, state, "the rise is 10%", "ema", 1.0) for n, state in enumerate(states, 1)]


def over_run(reaction, states):
    """Step by step: what was warned of, and at which steps the training was to stop."""
    history, warnings, stops = history_of(states), [], []
    for num in range(1, len(history) + 1):
        if reaction.act(history[:num], warn=warnings.append):
            stops.append(history[num - 1].step)
    return warnings, stops


@pytest.mark.parametrize(("on_alarm", "stops"), [("warn", []), ("stop", [30, 70])])
def test_the_alarm_is_reported_and_the_training_stopped_once_for_each_time_that_it_is_raised(on_alarm, stops):
    warnings, found = over_run(Reaction(on_alarm, None, 60.0), [G, N, M, C, G, N, M])
    assert found == stops
    for warning, step in zip(warnings, (30, 70), strict=True):
        assert f"step {step}, memorizing: the rise is 10%. " in warning
        assert ("The training stops" in warning) is (on_alarm == "stop")
        assert "take a checkpoint from before the onset" in warning


def test_each_state_may_have_its_own_action():
    """A check that passes several states at once is answered for the most harmful of them."""
    actions = {"onset": "warn", "memorizing": "stop"}
    warnings, stops = over_run(Reaction(actions, None, 60.0), [G, N, N, M, G, C])
    assert [warning.split(":")[0] for warning in warnings] == [
        "step 20, onset",
        "step 40, memorizing",
        "step 60, copying",
    ]
    assert stops == [40, 60]
    assert over_run(Reaction({"copying": "stop"}, None, 60.0), [G, N, M, C])[1] == [40]


def test_a_function_gets_the_check_and_decides_itself():
    seen = []
    assert over_run(Reaction(seen.append, None, 60.0), [W, G, M, M]) == ([], [])
    assert seen == history_of([W, G, M])[2:]


@pytest.mark.parametrize(
    ("copy_audit", "expected"), [("confirm", [3, 6]), (2, [2, 4, 6]), (1, [1, 2, 3, 4, 5, 6]), (None, [])]
)
def test_copies_are_counted_at_the_checks_that_were_asked_for(copy_audit, expected):
    reaction, history = Reaction("warn", copy_audit, 60.0), history_of([G, N, M, C, N, M])
    assert [num for num in range(1, 7) if reaction.is_audit_due(history[:num])] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ignore", None, 60.0), "on_alarm = 'ignore'"),
        (({"onset": "ignore"}, None, 60.0), "on_alarm = 'ignore'"),
        (({"raised": "stop"}, None, 60.0), "the states are 'onset', 'memorizing', 'copying'"),
        (("warn", "always", 60.0), "copy_audit = 'always'"),
        (("warn", 0, 60.0), "copy_audit = 0"),
        (("warn", True, 60.0), "copy_audit = True"),
        (("warn", "confirm", -1.0), "copy_audit_seconds = -1.0"),
    ],
)
def test_an_argument_out_of_range_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Reaction(*arguments)
