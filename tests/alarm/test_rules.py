"""What each rule finds in checks of known truth: its tests are scipy's, and its errors are as rare as promised."""

import json
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp, ttest_rel
from simulated import HUMPED, LOWER, SIGMAS, STD, simulated_check
from test_losses import assert_rare, assert_turns_at, last_finding

from unimodal_monitor import AdvantageGrew, AlarmState, GapOpened
from unimodal_monitor.alarm.rule import Finding
from unimodal_monitor.alarm.rules import REFERENCES
from unimodal_monitor.signals.growth import LEVELS

K, SETS = len(SIGMAS), ("heldout", "members", "memorizer")
USED = [level for level, sigma in enumerate(SIGMAS.tolist()) if LEVELS[0] * STD <= sigma <= LEVELS[1] * STD]


def errors_of(measured):
    return (getattr(measured, f"{of}_error").numpy() for of in SETS)


@pytest.mark.parametrize("min_growth", [0.0, 0.02])
@pytest.mark.parametrize("seed", range(3))
def test_growth_is_scipys_paired_test_of_log_errors_corrected_for_levels_and_references(min_growth, seed):
    """Without image statistics; at the levels of `LEVELS` alone."""
    before, after = simulated_check(gap=0.0, seed=seed), simulated_check(gap=0.3, seed=seed + 100)
    advantage = [np.log(heldout[USED] / members[USED]) for heldout, members, _ in map(errors_of, (before, after))]
    p_value_K = ttest_1samp(advantage[1] - advantage[0], min_growth, axis=1, alternative="greater").pvalue
    rule = AdvantageGrew(min_growth)
    turns_at = len(REFERENCES) * len(USED) * p_value_K.min()
    assert_turns_at(lambda alpha: last_finding(rule, before, after, alpha=alpha).triggered, turns_at)


def test_what_is_fixed_cancels():
    """A gap that is open from the start, such as of noisier held-out images, does not grow."""
    checks = [simulated_check(gap=0.4, seed=1)] * 3
    found = last_finding(AdvantageGrew(0.0), *checks, alpha=0.9)
    assert not found.triggered
    assert found.estimate.value == pytest.approx([0.0] * len(USED), abs=1e-12)


def test_growth_is_reported_from_the_first_check_and_tested_from_all_references():
    """With a dip in between, the later reference sees more."""
    gaps = (0.3, 0.0, 0.0, 0.3)
    found = last_finding(AdvantageGrew(), *(simulated_check(gap=gap, seed=1) for gap in gaps))
    assert found.triggered
    assert "since step 20" in found.sentence
    assert found.estimate.label == "growth of the members' advantage since step 10"
    np.testing.assert_allclose(found.estimate.value, 0.0, atol=1e-12)
    lower = last_finding(AdvantageGrew(), *(simulated_check(gap=gap, seed=1) for gap in (0.3, 0.0)))
    assert not lower.triggered
    assert "did not grow significantly since step 10" in lower.sentence


def test_references_are_the_same_checks_whatever_they_show():
    checks = [simulated_check(gap=gap, num_pairs=10, seed=seed) for seed, gap in enumerate(np.linspace(0, 0.9, 20))]
    found = last_finding(AdvantageGrew(), *checks)
    assert [one["step"] for one in found.reference["advantages"]] == [10 * number for number in REFERENCES]
    assert json.loads(json.dumps(found.reference)) == found.reference


def test_the_first_check_has_nothing_to_compare_with():
    found = last_finding(AdvantageGrew(), simulated_check(gap=0.9))
    assert (found.triggered, found.is_ready, found.is_tested) == (False, False, True)
    missing = replace(simulated_check(), missing={"denoising_gap": "not verified (an odd loss)"})
    found = last_finding(AdvantageGrew(), simulated_check(gap=0.0), simulated_check(gap=0.0), missing)
    assert (found.triggered, found.is_ready, found.is_tested) == (False, False, False)
    assert "cannot be compared: not verified (an odd loss)" in found.sentence
    assert found.reference["count"] == 2


def test_no_growth_is_called_growth_as_seldom_as_promised():
    """Members and held-out images drawn alike, of statistics that make half of them harder, at both checks."""

    def run(seed):
        generator = np.random.default_rng(seed)
        statistics = torch.from_numpy(generator.standard_normal((60, 4)))
        checks = []
        for slope in (0.2, 0.5):  # the network learns smooth images first
            check = simulated_check(gap=0.0, num_images=2, num_pairs=60, seed=generator.integers(10**9))
            harder = torch.exp(-slope * statistics[:, 0])
            known = {"members_covariates": statistics, "heldout_covariates": torch.zeros_like(statistics)}
            checks.append(replace(check, members_error=check.members_error * harder, **known))
        return last_finding(AdvantageGrew(0.0), *checks, alpha=0.4).triggered

    # only one of four references can trigger: a quarter of alpha is spent
    assert_rare([run(seed) for seed in range(400)], 0.1, at_least=0.5)


@pytest.mark.parametrize("shift", [0.5, -0.5])
def test_members_with_other_statistics_are_no_members_of_another_kind(shift):
    """Members are smoother than held-out images, and smooth images are learned faster: adjusted for that, no growth."""
    generator = np.random.default_rng(0)
    statistics = torch.from_numpy(shift + generator.standard_normal((500, 4)))
    first, last = (simulated_check(gap=0.0, num_images=2, num_pairs=500, seed=seed) for seed in (1, 2))
    last = replace(last, members_error=last.members_error * torch.exp(-0.5 * np.sign(shift) * statistics[:, 0]))
    covariates = {"members_covariates": statistics, "heldout_covariates": torch.zeros_like(statistics)}
    plain, adjusted = (
        last_finding(AdvantageGrew(0.0), first, replace(last, **known), alpha=1e-3).triggered
        for known in ({}, covariates)
    )
    assert (plain, adjusted) == (True, False)


@dataclass(frozen=True)
class ScriptedLoss:
    """A loss that is found or not, and uses up an alpha."""

    triggered: bool
    is_tested: bool = True

    def test(self, measured, reference, *, number, step, alpha):
        sentence = f"a loss at {alpha:.4f}"
        return Finding(self.triggered, sentence, {"count": 1 + (reference or {"count": 0})["count"]}, self.is_tested)


def test_two_levels_of_nine_are_enough_one_of_which_is_not_low():
    def found(*levels):
        return last_finding(GapOpened(0.3), simulated_check(gap=[0.8 * (level in levels) for level in range(K)]))

    assert found(3, 5).triggered
    assert not found(0, 1, 2, 3).triggered  # fine noise
    assert not found(5).triggered
    measured = simulated_check(gap=[0.8 * (level in (4, 5)) for level in range(K)])
    heldout, members, memorizer = (float(error[4].mean()) for error in errors_of(measured))
    share = (heldout - members) / (heldout - memorizer)
    assert f"is {share:.0%} of the memorizer's at sigma {SIGMAS[4]:.3g}, significantly over 30%" in found(4, 5).sentence


@pytest.mark.parametrize("min_gap", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_an_open_gap_is_scipys_paired_test_corrected_for_the_levels(min_gap, seed):
    """The second smallest p-value counts; the largest level's is made one of the smallest."""
    measured = simulated_check(gap=[0.4] * (K - 1) + [0.9], seed=seed)
    heldout_KP, members_KP, memorizer_KP = errors_of(measured)
    mark_KP = heldout_KP - min_gap * (heldout_KP - memorizer_KP)
    p_value_K = ttest_rel(mark_KP, members_KP, axis=1, alternative="greater").pvalue
    rule = GapOpened(min_gap)
    assert_turns_at(lambda alpha: last_finding(rule, measured, alpha=alpha).triggered, K * sorted(p_value_K)[1])


@pytest.mark.parametrize("num_pairs", [20, 130])
def test_a_gap_at_the_mark_is_called_open_as_seldom_as_promised(num_pairs):
    """At exactly `min_gap` at one level and far over it at another, the worst of all truths."""
    gap = [0.3, *[0.0] * (K - 2), 3.0]
    checks = (simulated_check(gap=gap, num_images=2, num_pairs=num_pairs, seed=seed) for seed in range(500))
    triggers = [last_finding(GapOpened(0.3), measured, alpha=0.9).triggered for measured in checks]
    assert_rare(triggers, 0.1, at_least=0.5)


@pytest.mark.parametrize("gap", [0.0, 0.5])
def test_a_loss_has_to_confirm_the_gap(gap):
    """Each of them has its share of alpha, and keeps a reference of its own."""
    measured = simulated_check(gap=gap)
    for triggered in ((False, False), (False, True)):
        rule = GapOpened(0.1, losses=[ScriptedLoss(loss) for loss in triggered])
        found = last_finding(rule, measured, measured, alpha=0.01)
        assert found.triggered is (any(triggered) and gap > 0)
        assert found.reference == {"losses": [{"count": 2}, {"count": 2}]}
        assert ("a loss at 0.0050" in found.sentence) is found.triggered
    unseen = GapOpened(0.1, losses=[ScriptedLoss(False, is_tested=False)])
    assert not last_finding(unseen, measured).is_tested


def test_the_default_confirmation_is_a_lost_rise_a_lower_peak_or_a_lower_invariance():
    def found(*means, gap=0.3):
        checks = [
            simulated_check(mean, gap=gap * number, invariance=invariance, seed=number)
            for number, (mean, invariance) in enumerate(means)
        ]
        return last_finding(GapOpened.confirmed(), *checks)

    assert not found((HUMPED, HUMPED), (HUMPED, HUMPED)).triggered
    assert found((HUMPED, HUMPED), (LOWER, HUMPED)).triggered
    assert not found((HUMPED, HUMPED), (LOWER, HUMPED), gap=0.0).triggered
    assert "the invariance of the features fell" in found((HUMPED, HUMPED), (HUMPED, LOWER)).sentence
    assert "but the features have lost nothing" in found((HUMPED, HUMPED), (HUMPED, HUMPED)).sentence


def test_a_gap_that_was_not_measured_or_cannot_be_trusted_is_not_open():
    darker = replace(simulated_check(gap=0.8), shift="held-out images are darker")
    spoiled = simulated_check(gap=0.8)
    spoiled.members_error[0, 0] = torch.nan
    reasons = {"their errors were not measured": simulated_check(), "held-out images are darker": darker}
    for why, measured in {**reasons, "their errors are not finite": spoiled}.items():
        found = last_finding(GapOpened(), measured)
        assert (found.triggered, found.is_tested, found.is_ready) == (False, False, False)
        assert f"no statement about the gap: {why}" in found.sentence
    assert not last_finding(AdvantageGrew(), simulated_check(gap=0.0), spoiled).is_tested
    useless_memorizer = replace(darker, shift=None, heldout_error=darker.memorizer_error - 0.1)
    assert "not defined at any level" in last_finding(GapOpened(), useless_memorizer).sentence


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(AdvantageGrew, min_growth=-0.1), "min_growth = -0.1"),
        (partial(AdvantageGrew, share=0.0), "share = 0.0"),
        (partial(GapOpened, min_gap=-0.1), "min_gap = -0.1"),
        (partial(GapOpened, min_gap=np.nan), "min_gap = nan"),
        (partial(GapOpened, share=1.1), "share = 1.1"),
    ],
)
def test_an_argument_out_of_range_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_rules_give_their_states():
    assert [rule.state for rule in (AdvantageGrew(), GapOpened(), GapOpened.confirmed())] == [
        AlarmState.ONSET, AlarmState.MEMORIZING, AlarmState.MEMORIZING,
    ]  # fmt: skip
