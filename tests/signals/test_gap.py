"""The gaps against scipy, and their limits against the test whose inverse they are and repeated draws."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel
from simulated import SIGMAS, simulated_check

from unimodal_monitor.signals.gap import denoising_error, denoising_gap, fieller, normalized_gap
from unimodal_monitor.stats.paired import adjusted_means


def test_denoising_error_is_the_mean_square_of_each_image():
    denoised, clean = torch.randn(2, 4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    expected = np.square(denoised.numpy() - clean.numpy()).mean((2, 3, 4))
    np.testing.assert_allclose(denoising_error(denoised, clean), expected, rtol=1e-5)


def test_the_gap_has_the_limits_of_the_paired_t_test():
    case = simulated_check(gap=0.3, num_pairs=50)
    found = denoising_gap(case)
    expected = ttest_rel(case.heldout_error, case.members_error, axis=1).confidence_interval(0.95)
    np.testing.assert_allclose(found.value, (case.heldout_error - case.members_error).mean(1))
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high])
    assert found.neutral == 0.0


@pytest.mark.parametrize("signal", [denoising_gap, normalized_gap])
def test_a_shift_of_the_heldout_images_is_noted(signal):
    shifted = replace(simulated_check(gap=0.3), shift="held-out images are darker than the members")
    assert signal(shifted).note == "held-out images are darker than the members"


@pytest.mark.parametrize("gap", [1.0, 0.5, 0.0])
def test_the_memorizer_has_a_normalized_gap_of_one_and_a_fair_network_of_zero(gap):
    found = normalized_gap(simulated_check(gap=gap, num_pairs=2000))
    assert found.sigmas == tuple(SIGMAS.tolist())
    assert found.value == pytest.approx([gap] * 9, abs=0.05)


@pytest.mark.parametrize("num", [20, 130])
def test_the_limits_are_those_at_which_the_rules_t_test_is_just_significant(num):
    """The rule tests whether (1 - g) held-out + g memorizer - members is positive, or negative."""
    case = simulated_check(gap=0.3, num_pairs=num)
    found = normalized_gap(case)
    assert len(found.sigmas) == 9
    for level, limits in enumerate(zip(found.low, found.high, strict=True)):
        for g, side in zip(limits, ("greater", "less"), strict=True):
            bound = (1 - g) * case.heldout_error[level] + g * case.memorizer_error[level]
            assert ttest_rel(bound, case.members_error[level], alternative=side).pvalue == pytest.approx(0.025)


def test_the_limits_cover_the_normalized_gap_as_often_as_promised():
    """95 % of 1,200 experiments of a ratio of 0.3."""
    lead_EN = np.random.default_rng(0).normal(1.0, 0.5, size=(1200, 30))
    gap_EN = 0.3 * lead_EN + np.random.default_rng(1).normal(0, 0.3, size=(1200, 30))
    pairs = (adjusted_means(np.stack(pair)) for pair in zip(gap_EN, lead_EN, strict=True))
    limits = [fieller(pair, confidence=0.95) for pair in pairs]
    assert 0.93 < np.mean([low <= 0.3 <= high for low, high in limits]) < 0.97


def test_levels_at_which_the_memorizer_does_not_lead_are_left_out():
    """A denominator that may be zero has no limits."""
    top, bottom = np.random.default_rng(2).normal(1, 2, size=(2, 20))
    assert fieller(adjusted_means(np.stack([top, bottom - bottom.mean() + 0.1])), confidence=0.9) is None
    case = simulated_check(gap=0.3)
    leads = torch.arange(9).unsqueeze(1) == 1
    found = normalized_gap(replace(case, memorizer_error=torch.where(leads, case.memorizer_error, case.heldout_error)))
    assert [len(row) for row in (found.value, found.low, found.high)] == [1, 1, 1]
    assert found.sigmas == (float(SIGMAS[1]),)
    assert normalized_gap(replace(case, memorizer_error=case.heldout_error + 1)).headline is None
