"""How much error a check may spend."""

from itertools import pairwise

import pytest

from unimodal_monitor.alarm.spending import share_of_check


@pytest.mark.parametrize("planned", [1, 2, 7, 50])
def test_all_that_is_spent_is_one_and_no_more(planned):
    """The tail of planned / (2 n (n - 1)) from N + 1 on sums to planned / (2 N)."""
    spent = sum(share_of_check(number, planned=planned) for number in range(1, 10_001))
    assert spent == pytest.approx(1 - planned / (2 * 10_000))


def test_planned_checks_spend_alike_and_later_ones_less():
    """Without a jump where the plan ends."""
    shares = [share_of_check(number, planned=50) for number in range(1, 200)]
    assert set(shares[:50]) == {0.01}
    assert shares[50] == pytest.approx(0.01, rel=0.03)
    assert all(later < earlier for earlier, later in pairwise(shares[49:]))
