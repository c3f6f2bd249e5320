"""Forecast: the share of samples that are copies now, and when it reaches 1 %, from the normalized gap alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import t as student

NUM_RUNS = 3
"""Runs that everything here rests on: two of a CIFAR-10 network and one of an example. No more than a rough guide."""
CONFIDENCE = 0.9
INTERCEPT, SLOPE = -10.8, 2.79
"""Of the log odds that a sample is a copy (1/3 rule), as a line of the log odds m / (1 - m) of the normalized gap."""
SPREAD = 0.8
"""Standard deviation of the seen log odds about that line: a factor of 2.2. The line overstates low shares."""
ODDS = 10.0
"""Odds of the gap at which 1 % of the samples are copies: m = 0.91."""
MIN_GAP = 0.1
"""Below it no forecast has been tried."""
LINEAR_FROM = 0.7
"""Gap from which the odds grow in proportion to the images seen."""
GAPS = (0.1, 0.2, 0.5, 0.7)
MULTIPLES = (3.5, 2.7, 2.0, 1.6)
"""Images seen at ODDS by those seen at each of GAPS."""
FACTOR_GAPS, FACTORS = (0.1, 0.5), (2.6, 2.0)
"""Factor to both limits of the forecast, 90 %; beyond the last gap it stays."""
SPACING = 0.8
"""Growth is measured from the latest check at no more than this share of the images seen now."""


@dataclass(frozen=True)
class Forecast:
    """When 1 % of the samples are copies, in images seen, with 90 % limits.

    >>> Forecast(low=190e3, high=310e3, seen=95e3, expected=240e3).sentence()
    '1 % of copies expected between 190k and 310k images seen (rough, from 3 runs); you are at 95k'
    """

    low: float
    high: float
    seen: float  # up to now; 0 for a run that has not begun
    expected: float

    def sentence(self, unit: str = "images seen") -> str:
        """The limits, and where the run is; in steps, say, where those were counted in place of images."""
        if 0 < self.seen >= self.expected:
            return f"1 % of copies expected by now, at {_amount(self.seen)} {unit} (rough, from {NUM_RUNS} runs)"
        limits = f"between {_amount(self.low)} and {_amount(self.high)} {unit} (rough, from {NUM_RUNS} runs)"
        return f"1 % of copies expected {limits}" + (f"; you are at {_amount(self.seen)}" if self.seen else "")


def expected_copies(gap: float, *, offset: float = 0.0) -> tuple[float, float, float]:
    """Share of samples that are copies by the 1/3 rule, and its 90 % limits, without drawing a sample.

    logit(share) = INTERCEPT + offset + SLOPE logit(gap). The limits are Student's for one more run, with the spread of
    the points about the line and NUM_RUNS - 1 degrees of freedom, as points of one run are alike: a factor of 15 in the
    odds to each side. An audit is what narrows a share down.

    >>> [round(share, 4) for share in expected_copies(0.932)]
    [0.0294, 0.002, 0.3103]

    Args:
        gap: Normalized gap; a gap of 0 or less means no copies, one of 1 or more only copies.
        offset: Of the line, from `recalibrated`. It does not narrow the limits: the line errs within a run as well.

    Raises:
        ValueError: If the gap is not a number.
    """
    if math.isnan(gap):
        raise ValueError("the normalized gap must be a number, got nan")
    if not 0 < gap < 1:
        return (float(gap >= 1),) * 3
    log_odds = INTERCEPT + offset + SLOPE * math.log(_odds(gap))
    reach = float(student.isf((1 - CONFIDENCE) / 2, NUM_RUNS - 1)) * _run_spread()
    share, low, high = (float(expit(log_odds + shift)) for shift in (0, -reach, reach))
    return share, low, high


def recalibrated(gap: float, num_copies: int, num_samples: int) -> float:
    """Offset of the line in log odds that an audit of this run asks for, for `expected_copies`.

    It maximizes the binomial likelihood of the audit times a normal prior around 0 with the spread from run to run. An
    audit that could not see the expected share leaves it near 0; one with many copies puts the line through it.

    >>> round(recalibrated(0.932, num_copies=60, num_samples=1000), 2)
    0.73

    Args:
        gap: Normalized gap of the audited network, between 0 and 1.
        num_copies: Number of copies found.
        num_samples: Number of samples drawn.

    Raises:
        ValueError: If the gap is not between 0 and 1, or there are more copies than samples.
    """
    if not 0 < gap < 1:
        raise ValueError(f"an audit calibrates at a normalized gap between 0 and 1, got {gap}")
    if not 0 <= num_copies <= num_samples:
        raise ValueError(f"need at most as many copies as samples, got {num_copies} of {num_samples}")
    log_odds, precision = INTERCEPT + SLOPE * math.log(_odds(gap)), 1 / _run_spread() ** 2

    def slope(offset: float) -> float:
        return float(num_copies - num_samples * expit(log_odds + offset) - precision * offset)

    return float(brentq(slope, -(num_samples + 1) / precision, (num_copies + 1) / precision))


def forecast(seen: Sequence[float], gaps: Sequence[float], *, lows: Sequence[float] | None = None) -> Forecast | None:
    """Images seen at which 1 % of the samples are copies, or None where nothing can be said.

    Up to LINEAR_FROM it is a multiple of the images seen now, interpolated in the log odds of the gap. From there on
    the odds are a line through the last check and the latest check at no more than SPACING of its images seen.

    There is no forecast below MIN_GAP, nor where the odds do not grow: since that earlier check they must have grown at
    least in proportion to the images seen (in the runs behind the table, with about their fourth power), and the lower
    limit of the last gap, if given, must be above the earlier gap.

    >>> forecast([40e3, 75e3], [0.1, 0.5])
    Forecast(low=75000.0, high=300000.0, seen=75000.0, expected=150000.0)

    Args:
        seen: Images seen at each check, ascending.
        gaps: Normalized gap at each check, of one level.
        lows: Lower confidence limits of the gaps.

    Raises:
        ValueError: If the sequences differ in length, a number is not finite, or the images seen do not ascend.
    """
    columns = [seen, gaps] if lows is None else [seen, gaps, lows]
    if len(set(map(len, columns))) > 1 or not all(map(math.isfinite, (value for row in columns for value in row))):
        raise ValueError(f"need finite images seen, gaps and limits of every check, got {columns}")
    if any(later <= earlier for earlier, later in pairwise(seen)):
        raise ValueError(f"images seen must ascend from check to check, got {list(seen)}")
    if len(gaps) == 0 or gaps[-1] < MIN_GAP:
        return None
    now, gap = float(seen[-1]), float(gaps[-1])
    if _odds(gap) >= ODDS:
        return Forecast(now, now, now, now)
    earlier = max((check for check, images in enumerate(seen) if images <= SPACING * now), default=None)
    if earlier is None or (lows is not None and lows[-1] <= gaps[earlier]):
        return None
    if _odds(gap) * seen[earlier] < max(_odds(gaps[earlier]), 0) * now:
        return None
    log_odds = math.log(_odds(gap))
    if gap <= LINEAR_FROM:
        expected = now * math.exp(float(np.interp(log_odds, _log_odds(GAPS), np.log(MULTIPLES))))
    else:
        slope = (_odds(gap) - _odds(gaps[earlier])) / (now - seen[earlier])
        expected = now + (ODDS - _odds(gap)) / slope
    factor = math.exp(float(np.interp(log_odds, _log_odds(FACTOR_GAPS), np.log(FACTORS))))
    return Forecast(max(now, expected / factor), expected * factor, now, expected)


def scaled_to(forecast: Forecast, *, from_members: int, to_members: int) -> Forecast:
    """The forecast for the same network on another number of members, for a run that has not begun.

    Memorization time is taken as proportional to the number of members. The exponents measured are 1.07 and 1.08, so
    that the forecast comes early by 10 % for four times the members, 30 % for thirty times.

    Source: Bonnaire et al. 2025, arXiv 2505.17638.

    >>> scaled_to(Forecast(100e3, 400e3, 75e3, 200e3), from_members=256, to_members=1024).sentence()
    '1 % of copies expected between 400k and 1.6M images seen (rough, from 3 runs)'

    Raises:
        ValueError: If a number of members is not positive.
    """
    if min(from_members, to_members) < 1:
        raise ValueError(f"need at least 1 member, got {from_members} and {to_members}")
    times = to_members / from_members
    return Forecast(forecast.low * times, forecast.high * times, 0.0, forecast.expected * times)


def _run_spread() -> float:
    """Standard deviation of another run's log odds about the line, with the line's own error."""
    return SPREAD * math.sqrt(1 + 1 / NUM_RUNS)


def _odds(gap: float) -> float:
    """Odds of a gap; infinite from 1 on."""
    return gap / (1 - gap) if gap < 1 else math.inf


def _log_odds(gaps: Sequence[float]) -> list[float]:
    """Log odds of gaps between 0 and 1."""
    return [math.log(_odds(gap)) for gap in gaps]


def _amount(num_images: float) -> str:
    """Images seen to two digits or more: 95k, 190k, 1.6M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if float(f"{num_images:.2g}") >= size:
            scaled = float(f"{num_images / size:.2g}")
            return f"{scaled:.0f}{unit}" if scaled >= 10 else f"{scaled:g}{unit}"
    return f"{num_images:.0f}"
