"""The clock of the checks, with a clock that is moved by hand."""

import pytest

from unimodal_monitor.budget import REPORT, Budget


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def look(budget, clock, kind, seconds):
    with budget.spending(kind):
        clock.now += seconds


def overheads_of_a_run(budget, clock, looks, *, step_s=0.3, every=20):
    """Overheads after each of the looks, which are made as soon as the budget allows it when it is asked."""
    found = []
    for number, (kinds, seconds) in enumerate(looks):
        while not budget.allows(*kinds):
            clock.now += every * step_s
        for kind, taken in zip(kinds, seconds, strict=False):
            look(budget, clock, kind, taken * (1.05 if number % 2 else 1.0))
        found.append(budget.overhead)
    return found


@pytest.mark.parametrize("max_overhead", [0.01, 0.2])
def test_twenty_looks_take_the_budget_and_no_more(clock, max_overhead):
    """At or below it after every look but the first, which has no training to be compared with; at the end near it."""
    budget = Budget(max_overhead, clock=clock)
    first, *later = overheads_of_a_run(budget, clock, 20 * [(["check"], [7.0])])
    assert first is None
    assert max(later) <= max_overhead
    assert later[-1] >= 0.8 * max_overhead


@pytest.mark.parametrize("in_doubt", [False, True])
def test_looks_of_two_kinds_share_the_budget(clock, in_doubt):
    """There is always room for the check that follows a glance in doubt."""
    budget = Budget(0.01, clock=clock)
    glance = ["glance", "check"], [1.0, 8.0] if in_doubt else [1.0]
    looks = 5 * [(["check"], [8.0]), *3 * [glance]]
    later = overheads_of_a_run(budget, clock, looks)[1:]
    assert max(later) <= 0.01
    assert later[-1] >= 0.008


def test_a_kind_not_seen_yet_is_taken_for_the_longest(clock):
    """After a check of 8 s another look of any kind has to wait for 1,680 s of training at 1 %."""
    budget = Budget(0.01, clock=clock)
    look(budget, clock, "check", 8.0)
    clock.now += 1600
    assert not budget.allows("glance")
    clock.now += 81
    assert budget.allows("glance")


def test_a_look_that_fails_is_paid_for(clock):
    """Its seconds are no training."""
    budget = Budget(0.01, clock=clock)
    with pytest.raises(RuntimeError), budget.spending("check"):
        clock.now += 5.0
        raise RuntimeError
    clock.now += 50.0
    assert budget.overhead == pytest.approx(0.1)


def test_without_a_limit_everything_is_allowed_and_still_measured(clock):
    """The true share is logged all the same."""
    budget = Budget(None, clock=clock)
    look(budget, clock, "check", 5.0)
    assert budget.allows("check")
    clock.now += 10.0
    assert budget.overhead == pytest.approx(0.5)


@pytest.mark.parametrize("max_overhead", [0.0, -0.1, float("nan")])
def test_a_share_that_is_not_positive_is_refused(max_overhead):
    """The error says what came."""
    with pytest.raises(ValueError, match=f"max_overhead = {max_overhead}"):
        Budget(max_overhead)


def test_reports_are_paid_for_and_expected_again(clock):
    """After a check of 1 s and figures of 2 s the next one waits until 6.3 s are 1 % of the training."""
    budget = Budget(0.01, clock=clock)
    look(budget, clock, "check", 1.0)
    look(budget, clock, REPORT, 2.0)
    clock.now += 629.0
    assert budget.overhead == 3 / 629
    assert not budget.allows("check")
    clock.now += 2.0
    assert budget.allows("check")


def test_a_report_is_no_measure_of_a_look_and_is_not_forgotten(clock):
    """Figures of 10 s: a first glance is expected to take as long as a check of 1 s, and figures follow it."""
    budget = Budget(0.01, clock=clock)
    look(budget, clock, "check", 1.0)
    look(budget, clock, REPORT, 10.0)
    clock.now += 2300.0
    assert not budget.allows("glance")
    clock.now += 11.0
    assert budget.allows("glance")
    look(budget, clock, "glance", 0.1)
    assert not budget.allows("check")


def test_time_aside_is_neither_looks_nor_training(clock):
    """An audit has a budget of its own, and a failed one counts as little."""
    budget = Budget(0.01, clock=clock)
    with budget.aside():
        clock.now += 1000.0
    look(budget, clock, "check", 1.0)
    clock.now += 50.0
    before = budget.overhead
    with pytest.raises(RuntimeError), budget.aside():
        clock.now += 1000.0
        raise RuntimeError
    assert budget.overhead == before == 1 / 50
    assert not budget.allows("check")
