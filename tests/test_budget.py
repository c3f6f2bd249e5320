"""When a check is due and when it can be afforded, with a clock that is moved by hand."""

import pytest

from unimodal_monitor.budget import Budget


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def budget_of(max_overhead, every_n_train_steps=20):
    return Budget(every_n_train_steps, max_overhead, clock=Clock())


def spend(budget, seconds, **kind):
    with budget.spending(**kind):
        budget.clock.now += seconds


@pytest.mark.parametrize("every", [1, 7, 100])
@pytest.mark.parametrize("stride", [1, 3, 250])
def test_a_check_is_due_where_the_training_passes_a_multiple_of_the_interval(every, stride):
    """The trainer may count several steps at a time; each multiple is checked once."""
    budget, due = budget_of(None, every), []
    steps = range(0, 1000, stride)
    for step in steps:
        for _ in range(2):
            if budget.is_due(step):
                due.append(step)
                spend(budget, 1.0)
    passed = [step for step in steps if any(n % every == 0 for n in range(max(0, step - stride + 1), step + 1))]
    assert due == passed


def test_a_resumed_run_waits_for_the_next_multiple_and_one_without_an_interval_asks_every_few_steps():
    assert 0 < sum(map(budget_of(None, None).is_due, range(100))) < 10
    budget = budget_of(None, 100)
    budget.last_step = 250
    assert [step for step in range(250, 360) if budget.is_due(step)] == [300, 320, 340]
    spend(budget, 1.0)
    assert next(step for step in range(360, 420) if budget.is_due(step)) == 400


@pytest.mark.parametrize("max_overhead", [0.01, 0.2])
@pytest.mark.parametrize("report", [0.0, 2.0])
def test_twenty_checks_take_the_share_and_no_more(max_overhead, report):
    """At or below it after every check but the first, which has no training before it; at the end near it."""
    budget, overheads = budget_of(max_overhead), []
    for number in range(20):
        while not budget.can_afford():
            budget.clock.now += 0.3
        spend(budget, 7.0 * (1.05 if number % 2 else 1.0))
        spend(budget, report, is_report=True)
        overheads.append(budget.overhead)
    first, *later = overheads
    assert first is None
    assert max(later) <= max_overhead
    assert later[-1] >= 0.8 * max_overhead


def test_a_check_is_expected_to_take_a_tenth_more_than_the_last_one_and_its_report():
    """After 1 s and 2 s the next one waits until 6.3 s are 1 % of the training."""
    budget = budget_of(0.01)
    spend(budget, 1.0)
    spend(budget, 2.0, is_report=True)
    budget.clock.now += 629.0
    assert not budget.can_afford()
    budget.clock.now += 2.0
    assert budget.can_afford()
    spend(budget, 0.0)
    assert budget.overhead == 3 / 631


def test_a_failed_check_is_paid_for_and_time_aside_is_neither_check_nor_training():
    """An audit has a limit of its own."""
    budget = budget_of(0.01)
    with budget.aside():
        budget.clock.now += 1000.0
    for block in (budget.spending(), budget.aside()):
        with pytest.raises(RuntimeError), block:
            budget.clock.now += 5.0
            raise RuntimeError
    budget.clock.now += 50.0
    spend(budget, 0.0)
    assert budget.overhead == pytest.approx(0.1)


@pytest.mark.parametrize(("every", "seconds", "can_afford"), [(20, 10, True), (None, 209, False), (None, 211, True)])
def test_without_a_share_there_is_no_limit_with_an_interval_and_a_hundredth_without_one(every, seconds, can_afford):
    budget = budget_of(None, every)
    spend(budget, 1.0)
    budget.clock.now += seconds
    assert budget.can_afford() is can_afford


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, None), "every_n_train_steps = 0")] + [((10, x), f"max_overhead = {x}") for x in (0.0, -0.1, float("nan"))],
)
def test_an_argument_that_is_not_positive_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Budget(*arguments)
