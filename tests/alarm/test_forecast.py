"""The forecast, against the copies that were counted in the runs it comes from (CIFAR-10 at 16 x 16)."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from scipy.stats import binom, norm
from scipy.stats import t as student

from unimodal_monitor.alarm.forecast import (
    NUM_RUNS,
    SPREAD,
    Forecast,
    expected_copies,
    forecast,
    recalibrated,
    scaled_to,
)

COUNTED = [(0.861, 0.001), (0.895, 0.003), (0.932, 0.024), (0.958, 0.121), (0.971, 0.322), (0.985, 0.684)]
PRINTED = [(0.861, 0.003), (0.895, 0.008), (0.932, 0.031), (0.958, 0.116), (0.971, 0.278), (0.985, 0.716)]


@pytest.mark.parametrize(("gap", "share"), PRINTED)
def test_the_share_is_that_of_the_line(gap, share):
    """The table's gaps have three digits: a tenth of the share."""
    assert expected_copies(gap)[0] == pytest.approx(share, rel=0.11)


def test_the_limits_hold_the_counts_and_are_students_for_another_run():
    for gap, counted in COUNTED:
        share, low, high = expected_copies(gap)
        assert low < counted < high
        reach = student.isf(0.05, NUM_RUNS - 1) * SPREAD * math.sqrt(1 + 1 / NUM_RUNS)
        assert [logit(low), logit(high)] == pytest.approx([logit(share) - reach, logit(share) + reach])


def test_the_spread_is_that_of_the_counts_about_the_line():
    residuals = [logit(counted) - logit(expected_copies(gap)[0]) for gap, counted in COUNTED]
    assert math.sqrt(np.square(residuals).sum() / (len(COUNTED) - 2)) == pytest.approx(SPREAD, abs=0.01)


def test_one_percent_of_copies_comes_at_odds_of_ten():
    assert expected_copies(0.90)[0] < 0.01 < expected_copies(0.92)[0]
    assert expected_copies(10 / 11)[2] > 0.1


def test_gaps_outside_of_0_to_1_mean_none_or_all():
    assert expected_copies(0.0) == expected_copies(-0.3) == (0, 0, 0)
    assert expected_copies(1.0) == expected_copies(1.2) == (1, 1, 1)
    assert 0 <= expected_copies(1e-300)[0] < 1e-9
    with pytest.raises(ValueError, match="must be a number"):
        expected_copies(math.nan)


def test_an_audit_shifts_the_line_by_the_most_probable_offset():
    gap, num_copies, num_samples = 0.932, 60, 1000
    spread = SPREAD * math.sqrt(1 + 1 / NUM_RUNS)

    def unlikely(offset):
        share = expit(logit(expected_copies(gap)[0]) + offset)
        return -binom.logpmf(num_copies, num_samples, share) - norm.logpdf(offset, scale=spread)

    offset = recalibrated(gap, num_copies, num_samples)
    assert offset == pytest.approx(minimize_scalar(unlikely, bounds=(-5, 5), method="bounded").x, abs=1e-4)
    assert expected_copies(gap, offset=offset)[0] == pytest.approx(num_copies / num_samples, rel=0.05)


def test_an_audit_that_cannot_see_the_share_changes_little():
    assert abs(recalibrated(0.5, 0, 500)) < 0.02
    assert recalibrated(0.932, 0, 0) == pytest.approx(0)
    assert recalibrated(0.932, 0, 500) < -1
    assert math.isfinite(recalibrated(0.99, 0, 100_000))
    assert math.isfinite(recalibrated(0.1, 1000, 1000))


def test_audits_that_cannot_be_are_refused():
    for gap, copies, samples in ((0.0, 0, 5), (1.0, 0, 5), (0.5, 6, 5), (0.5, -1, 5)):
        with pytest.raises(ValueError, match=r"an audit calibrates|as many copies as samples"):
            recalibrated(gap, copies, samples)


@pytest.mark.parametrize(("gap", "multiple", "factor"), [(0.1, 3.5, 2.6), (0.2, 2.7, None), (0.5, 2, 2), (0.7, 1.6, 2)])
def test_up_to_a_gap_of_seven_tenths_it_is_a_multiple_of_the_images_seen(gap, multiple, factor):
    found = forecast([10e3, 50e3, 100e3], [0.0, 0.05, gap])
    assert found.expected == pytest.approx(multiple * 100e3)
    assert found.seen == 100e3
    if factor:
        assert (found.low, found.high) == pytest.approx((max(1, multiple / factor) * 100e3, multiple * factor * 100e3))


def test_the_multiple_falls_as_the_gap_grows():
    rows = [forecast([50e3, 100e3], [0.01, gap]) for gap in np.linspace(0.1, 0.7, 30)]
    for earlier, later in pairwise(rows):
        assert later.expected < earlier.expected
        assert later.high < earlier.high


def test_the_run_with_256_members_is_forecast():
    """A gap of .5 at 75k images, 1 % of copies at 131k."""
    found = forecast([33e3, 54e3, 75e3], [0.05, 0.2, 0.5])
    assert found.low <= 131e3 <= found.high
    assert found.expected == pytest.approx(131e3, rel=0.2)


def test_beyond_it_odds_that_grow_linearly_are_forecast_exactly():
    """From the latest check that is far enough back, not from a neighbour."""
    seen = np.array([50e3, 90e3, 113e3, 118e3])
    odds = 10 - (137e3 - seen) * 1e-4
    gaps = odds / (1 + odds)
    assert gaps[-1] > 0.7
    assert forecast(seen, gaps).expected == pytest.approx(137e3)
    gaps[2] += 0.01
    assert forecast(seen, gaps).expected == pytest.approx(137e3)
    gaps[1] -= 0.05
    assert forecast(seen, gaps).expected < 136e3


def test_a_gap_past_the_mark_is_reached():
    found = forecast([50e3, 120e3], [0.5, 0.92])
    assert found.low == found.expected == found.high == found.seen == 120e3
    assert "by now" in found.sentence()
    assert forecast([1, 2], [0.5, 1.1]).seen == 2


@pytest.mark.parametrize(
    ("seen", "gaps", "lows"),
    [
        ([], [], None),
        ([100e3], [0.5], None),  # growth is unknown
        ([50e3, 100e3], [0.02, 0.09], None),  # too small
        ([50e3, 100e3], [0.6, 0.6], None),
        ([50e3, 100e3], [0.8, 0.81], None),  # less than in proportion to the images seen
        ([50e3, 100e3], [0.5, 0.3], None),
        ([90e3, 100e3], [0.1, 0.5], None),  # no check far enough back
        ([50e3, 100e3], [0.1, 0.3], [0.0, 0.05]),  # within the limits of error
    ],
)
def test_without_growth_there_is_no_forecast(seen, gaps, lows):
    assert forecast(seen, gaps, lows=lows) is None


def test_growth_that_is_significant_is_forecast():
    assert forecast([50e3, 100e3], [0.1, 0.3], lows=[0.0, 0.2]) == forecast([50e3, 100e3], [0.1, 0.3])
    assert forecast([50e3, 100e3], [-0.1, 0.3]) is not None


def test_checks_that_do_not_fit_together_are_refused():
    for seen, gaps, lows in (([1, 2], [0.1], None), ([1, 2], [0.1, math.nan], None), ([1, 2], [0.1, 0.2], [0.1])):
        with pytest.raises(ValueError, match="of every check"):
            forecast(seen, gaps, lows=lows)
    with pytest.raises(ValueError, match="must ascend"):
        forecast([2, 1], [0.1, 0.2])


def test_the_sentence_has_the_limits_and_where_the_run_is():
    sentence = Forecast(low=190e3, high=310e3, seen=95e3, expected=240e3).sentence()
    for words in ("1 % of copies expected between 190k and 310k images seen", "from 3 runs", "; you are at 95k"):
        assert words in sentence
    assert "between 950 and 1.2M " in Forecast(950, 1.23e6, 900, 2000).sentence()
    assert "between 1M and 2B " in Forecast(999_900, 1.98e9, 900, 1e6).sentence()


def test_another_number_of_members_takes_as_many_times_longer():
    """256 images to a gap of .5 took 75k, 1,024 took 337k."""
    pilot = Forecast(low=60e3, high=90e3, seen=50e3, expected=75e3)
    planned = scaled_to(pilot, from_members=256, to_members=1024)
    assert planned == Forecast(low=240e3, high=360e3, seen=0, expected=300e3)
    assert planned.low < 337e3 < planned.high
    assert "you are at" not in planned.sentence()
    with pytest.raises(ValueError, match="at least 1 member"):
        scaled_to(pilot, from_members=0, to_members=5)
