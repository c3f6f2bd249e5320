"""A check against an earlier one, paired image by image."""

import json

import numpy as np
import pytest
from scipy.stats import kstest, ttest_1samp, ttest_rel

from unimodal_monitor.stats.paired import Reference, lower_limits, p_value_under, surely_under, upper_limits


def test_limits_are_students():
    """Those of scipy's one-sample test, level by level."""
    values = np.random.default_rng(0).exponential(size=(3, 40))
    for row, low, high in zip(values, lower_limits(values, error=0.03), upper_limits(values, error=0.03), strict=True):
        expected = ttest_1samp(row, 0).confidence_interval(0.94)
        assert (low, high) == pytest.approx((expected.low, expected.high))


def test_the_p_value_is_that_of_the_paired_test():
    """Of the least convincing level."""
    generator = np.random.default_rng(1)
    reference = generator.normal(size=60)
    values = reference + generator.normal(-0.2, 0.5, size=(4, 60))
    expected = max(ttest_rel(row, reference, alternative="less").pvalue for row in values)
    assert p_value_under(values, reference) == pytest.approx(expected)
    assert surely_under(values, reference, error=1.01 * expected)
    assert not surely_under(values, reference, error=0.99 * expected)


def test_p_values_of_exchanged_checks_are_uniform():
    """Exchanging two checks image by image, by coin, is a change that changes nothing."""
    generator = np.random.default_rng(2)
    earlier = generator.exponential(size=500)
    later = 0.6 * earlier + 0.5 * generator.exponential(size=500)
    found = []
    for _ in range(1000):
        swap = generator.random(500) < 0.5
        found.append(p_value_under(np.where(swap, later, earlier)[None], np.where(swap, earlier, later)))
    assert kstest(found, "uniform").pvalue > 0.01


def test_pairing_sees_what_two_separate_limits_do_not():
    """A fall of a tenth of the spread between images, the same for all."""
    generator = np.random.default_rng(3)
    earlier = generator.normal(size=300)
    later = earlier - 0.1 + 0.1 * generator.normal(size=300)
    assert surely_under(later[None], earlier, error=1e-6)
    assert upper_limits(later[None], error=0.05)[0] > lower_limits(earlier[None], error=0.05)[0]


def test_a_single_level_that_holds_out_denies_the_fall():
    """All of them must be under the mark."""
    generator = np.random.default_rng(4)
    reference = generator.normal(1, 0.1, size=200)
    values = generator.normal(0, 0.1, size=(5, 200))
    assert surely_under(values, reference, error=1e-6)
    values[3] += 1.1
    assert not surely_under(values, reference, error=0.3)


def test_a_reference_comes_back_from_json_equal():
    """As from a checkpoint."""
    reference = Reference(7, 0.1, 0.2, (0.1, 0.5))
    assert Reference.from_dict(json.loads(json.dumps(reference.to_dict()))) == reference
    assert reference.mean == pytest.approx(0.3)
