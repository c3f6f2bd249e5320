"""GapOpened against scipy's paired t-test, and its errors against simulated checks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel
from simulated import HUMPED, SIGMAS, simulated_curve

from unimodal_monitor.alarm.rules.base import Look, Terms
from unimodal_monitor.alarm.rules.gap import GapOpened
from unimodal_monitor.signals.gap import Pairs

K, N, ERROR = len(SIGMAS), 130, 1e-3
LOOK = Look(1, 10, simulated_curve(HUMPED, num_images=300), np.zeros((K, 300)))


def look_with(gap, *, num_images=N, seed=0, levels=range(K)):
    """A check whose true gap is this part of the memorizer's at these levels, and nothing at the others.

    Errors of images are skewed, differ more between images than the gap is, and share the noise's part.
    """
    generator = np.random.default_rng(seed)
    noise, member, heldout = generator.gamma(4.0, 0.25, (3, K, num_images))
    memorizer = noise + member
    gap_K1 = np.where(np.isin(np.arange(K), list(levels)), gap, 0.0)[:, None]
    pairs = Pairs(*(torch.from_numpy(x) for x in (noise + heldout + 1, memorizer + 1 - gap_K1, memorizer)))
    return replace(LOOK, pairs=pairs)


@pytest.mark.parametrize(("gap", "min_gap", "holds"), [(0.6, 0.1, True), (0.6, 0.8, False), (0.0, 0.1, False)])
def test_a_gap_is_open_where_it_is_surely_more_than_asked_for(gap, min_gap, holds):
    """Six tenths of the memorizer's are more than one, and less than eight; no gap is none."""
    found = GapOpened(min_gap=min_gap).look(look_with(gap), error=ERROR)
    assert found.holds is holds
    assert (found.is_established, found.reaches) == (True, not holds)
    assert ("surely more than 10%" in found.sentence) is holds


def test_one_level_of_nine_is_enough_and_is_named():
    """With its part of the memorizer's gap, at its noise level."""
    look = look_with(0.8, levels=[4])
    found = GapOpened().look(look, error=ERROR)
    heldout_K, members_K, memorizer_K = (
        errors.mean(1) for errors in (look.pairs.heldout_KN, look.pairs.members_KN, look.pairs.memorizer_KN)
    )
    share = float((heldout_K - members_K)[4] / (heldout_K - memorizer_K)[4])
    assert found.holds
    assert found.sentence.startswith(f"the denoising gap is {share:.0%} of the memorizer's at sigma {SIGMAS[4]:.3g},")


@pytest.mark.parametrize("min_gap", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("seed", range(5))
def test_the_test_is_scipys_paired_one_with_the_error_divided_by_levels(min_gap, seed):
    """It turns at the smallest p-value of all levels, times their number."""
    look, rule = look_with(0.4, seed=seed), GapOpened(min_gap=min_gap)
    heldout_KN, members_KN, memorizer_KN = (
        errors.numpy() for errors in (look.pairs.heldout_KN, look.pairs.members_KN, look.pairs.memorizer_KN)
    )
    mark_KN = heldout_KN - min_gap * (heldout_KN - memorizer_KN)
    turns_at = K * ttest_rel(mark_KN, members_KN, axis=1, alternative="greater").pvalue.min()
    assert 0 < turns_at < K / 2
    assert rule.look(look, error=1.001 * turns_at).holds
    assert not rule.look(look, error=0.999 * turns_at).holds


@pytest.mark.parametrize("num_images", [20, N])
def test_a_gap_at_the_mark_is_called_open_as_seldom_as_promised(num_images):
    """1,500 checks at exactly `min_gap` at every level, the worst of all truths: at most the error, and not nothing."""
    rule, error, num_checks = GapOpened(min_gap=0.3), 0.1, 1500
    looks = (look_with(0.3, num_images=num_images, seed=seed) for seed in range(num_checks))
    share = np.mean([rule.look(look, error=error).holds for look in looks])
    assert error / 2 < share < error + 3 * (error * (1 - error) / num_checks) ** 0.5


def test_a_gap_that_was_not_measured_is_not_open():
    """And says so."""
    found = GapOpened().look(LOOK, error=ERROR)
    assert not found.holds
    assert found.sentence == "the denoising gap was not measured, or cannot be trusted"


def test_a_part_of_no_lead_is_not_told():
    """Where the memorizer denoises no better than the network does held-out images, nothing is divided."""
    look = look_with(0.0)
    heldout_KN = look.pairs.memorizer_KN - 0.1
    found = GapOpened().look(replace(look, pairs=replace(look.pairs, heldout_KN=heldout_KN)), error=ERROR)
    assert not found.holds
    assert "an unknown part of the memorizer's" in found.sentence


def test_nothing_is_kept_between_checks():
    """Each check speaks for itself, so a resumed rule is a new one; glances say nothing of the gap."""
    used, new = GapOpened(), GapOpened()
    used.look(look_with(0.9), error=ERROR)
    new.load_state_dict(used.state_dict())
    assert used.state_dict() == {}
    assert used.look(look_with(0.5, seed=1), error=ERROR) == new.look(look_with(0.5, seed=1), error=ERROR)
    assert used.forecast(look_with(0.9), Terms(0.25, 1e-4, 0.05)) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_gap": 1.0}, "min_gap = 1.0"),
        ({"min_gap": -0.1}, "min_gap = -0.1"),
        ({"min_gap": np.nan}, "min_gap = nan"),
        ({"share": 0.0}, "share = 0.0"),
        ({"share": 1.1}, "share = 1.1"),
    ],
)
def test_an_argument_out_of_range_is_refused(arguments, message):
    """The error names the argument and what came."""
    with pytest.raises(ValueError, match=message):
        GapOpened(**arguments)
