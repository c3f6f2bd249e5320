"""How the error that a run may make is spent over its checks."""


def share_of_check(number: int, *, planned: int) -> float:
    """Share of the run's error that may be spent at check `number`; over all checks, without end, it sums to one.

    Half is spread evenly over the planned checks, the other half falls off behind them as 1 / number^2. Whatever
    the dependence between checks, and here all of them look at the same images, the chance of any error is at most
    the sum of what was spent (Bonferroni). Spending falls off slowly because checks come early and late alike:
    50 planned checks cost a critical value of 3.3 in place of 1.6.

    Args:
        number: of the check, from 1.
        planned: checks that the run may well have; a longer run stays correct and loses a little power.

    Source: alpha spending of Lan and DeMets 1983, as a union bound.
    """
    if number <= planned:
        return 1 / (2 * planned)
    return planned / (2 * number * (number - 1))
