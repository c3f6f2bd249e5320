"""Tests of means, paired image by image, against scipy; for their limits see test_estimate.py."""

import numpy as np
import pytest
from scipy.stats import kstest, ttest_rel

from unimodal_monitor.stats.paired import p_value_all_below


def test_the_p_value_is_the_largest_of_all_paired_tests():
    generator = np.random.default_rng(1)
    reference = generator.normal(size=60)
    values = reference + generator.normal(-0.2, 0.5, size=(4, 60))
    expected = max(ttest_rel(row, reference, alternative="less").pvalue for row in values)
    assert p_value_all_below(values, reference) == pytest.approx(expected)


def test_p_values_of_exchanged_checks_are_uniform():
    """Two checks exchanged image by image, at the toss of a coin, do not differ."""
    generator = np.random.default_rng(2)
    earlier = generator.exponential(size=500)
    later = 0.6 * earlier + 0.5 * generator.exponential(size=500)
    found = []
    for _ in range(500):
        swap = generator.random(500) < 0.5
        found.append(p_value_all_below(np.where(swap, later, earlier)[None], np.where(swap, earlier, later)))
    assert kstest(found, "uniform").pvalue > 0.01


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 1.0), (0.5, 1.0), (-0.5, 0.0)])
def test_checks_that_differ_by_a_constant_have_a_p_value(shift, expected):
    reference = np.arange(8.0)
    assert p_value_all_below((reference + shift)[None], reference) == expected
