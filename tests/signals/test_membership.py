"""Membership from adjusted errors, against scikit-learn and under a network that treats all images alike."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score, roc_curve

from unimodal_monitor.signals.membership import Membership, membership

SLOPES = torch.tensor([1.0, -0.5, 0.25])


def errors_and_statistics(num_members, num_heldout, *, seed, advantage=0.0, num_levels=2):
    """Errors that statistics explain for the larger part; members' are lower by the factor exp(advantage)."""
    generator = torch.Generator().manual_seed(seed)
    num = num_members + num_heldout
    statistics_NS = torch.randn(num, 3, generator=generator)
    own_N = 0.5 * torch.randn(num, generator=generator)
    log_KN = statistics_NS @ SLOPES + own_N + 0.1 * torch.randn(num_levels, num, generator=generator) - 3
    log_KN[:, :num_members] -= advantage
    errors, statistics = (
        log_KN.exp().split([num_members, num_heldout], 1),
        statistics_NS.split([num_members, num_heldout]),
    )
    return (*errors, *statistics)


def found(members_error, heldout_error, members_statistics, heldout_statistics, **options):
    covariates = {"members_covariates_PS": members_statistics, "heldout_covariates_QS": heldout_statistics}
    return membership(members_error, heldout_error, **covariates, **options)


def scores_by_leaving_out(members_error, heldout_error, members_statistics, heldout_statistics):
    """Scores level by level, from a regression for each held-out image."""
    x, totals = heldout_statistics.numpy(), np.zeros(members_error.shape[1] + heldout_error.shape[1])
    for members, heldout in zip(members_error.log().numpy(), heldout_error.log().numpy(), strict=True):
        residuals = list(members - LinearRegression().fit(x, heldout).predict(members_statistics.numpy()))
        for left_out in range(len(x)):
            others = np.arange(len(x)) != left_out
            line = LinearRegression().fit(x[others], heldout[others])
            residuals.append(heldout[left_out] - line.predict(x[[left_out]])[0])
        totals -= np.array(residuals) / len(members_error)
    return totals


def test_the_numbers_are_scikit_learns_on_scores_from_regressions_without_the_image():
    inputs = errors_and_statistics(60, 110, seed=0, advantage=1.0)
    scores, is_member = scores_by_leaving_out(*inputs), np.arange(170) < 60
    result = found(*inputs)
    assert result.auroc == pytest.approx(roc_auc_score(is_member, scores))
    false_positive_rate, true_positive_rate, _ = roc_curve(is_member, scores)
    assert result.tpr_at_1_percent == pytest.approx(true_positive_rate[false_positive_rate <= 0.01].max())
    p_values = [(1 + (scores[60:] >= score).sum()) / 111 for score in scores[:60]]
    assert result.share_told_apart == pytest.approx(np.mean(np.array(p_values) < 0.01))
    assert 0 < result.share_told_apart < result.tpr_at_1_percent < 1
    assert result.auroc_low < result.auroc < result.auroc_high


def test_adjusting_tells_more_members_apart():
    """The AUC of normal scores a distance d apart is the normal distribution at d / sqrt 2."""
    members, heldout, *statistics = errors_and_statistics(2000, 2000, seed=1, advantage=0.5, num_levels=1)
    adjusted = found(members, heldout, *statistics).auroc
    plain = found(members, heldout, *(values[:, :0] for values in statistics)).auroc
    normal = torch.distributions.Normal(0, 1)
    for auroc, variance in ((adjusted, 0.26), (plain, 0.26 + float(SLOPES.square().sum()))):
        assert auroc == pytest.approx(float(normal.cdf(torch.tensor(0.5 / math.sqrt(2 * variance)))), abs=0.03)


def test_a_set_of_harder_images_is_no_sign_of_membership():
    members, heldout, members_statistics, heldout_statistics = errors_and_statistics(1000, 1000, seed=2)
    shift = torch.tensor([1.0, 0, 0])
    harder = found(members, heldout * math.e, members_statistics, heldout_statistics + shift)
    assert harder.auroc_low < 0.5 < harder.auroc_high
    assert found(members, heldout * math.e, members_statistics[:, :0], heldout_statistics[:, :0]).auroc > 0.6


@pytest.mark.parametrize(("num_members", "num_heldout"), [(100, 100), (40, 150)])
def test_a_network_that_treats_all_images_alike_stays_within_the_limits(num_members, num_heldout):
    results = [found(*errors_and_statistics(num_members, num_heldout, seed=seed)) for seed in range(400)]
    covered = np.mean([result.auroc_low <= 0.5 <= result.auroc_high for result in results])
    assert 0.925 <= covered <= 0.975
    assert np.mean([result.auroc for result in results]) == pytest.approx(0.5, abs=0.006)
    assert np.mean([result.share_told_apart for result in results]) <= 0.012
    wanted = (math.floor(0.01 * num_heldout) + 1) / (num_heldout + 1)
    assert np.mean([result.tpr_at_1_percent for result in results]) == pytest.approx(wanted, abs=0.004)


def test_few_heldout_images_cannot_show_one_percent():
    result = found(*errors_and_statistics(50, 99, seed=0, advantage=1.0))
    assert (result.tpr_at_1_percent, result.share_told_apart) == (None, None)
    assert result.auroc > 0.5
    assert found(*errors_and_statistics(50, 100, seed=0, advantage=1.0)).share_told_apart is not None


def test_ties_are_no_sign_of_membership():
    """Equal errors and constant statistics."""
    equal = torch.ones(2, 200), torch.ones(2, 200), torch.ones(200, 3), torch.ones(200, 3)
    result = found(*equal)
    assert (result.auroc, result.tpr_at_1_percent, result.share_told_apart) == (0.5, 0, 0)


def test_statistics_that_repeat_each_other_change_nothing():
    members, heldout, *statistics = errors_and_statistics(100, 120, seed=3, advantage=0.5)
    doubled = [torch.cat([values, 2 * values, torch.full_like(values, 7)], 1) for values in statistics]
    scaled = [values * torch.tensor([1e-6, 1.0, 1e6]) + 5 for values in statistics]
    wanted = found(members, heldout, *(values.double() for values in statistics))
    assert found(members, heldout, *doubled).auroc == pytest.approx(wanted.auroc, abs=1e-3)
    assert found(members, heldout, *scaled).auroc == pytest.approx(wanted.auroc, abs=0.05)
    assert isinstance(wanted, Membership)


def test_what_cannot_be_measured_is_refused():
    members, heldout, members_statistics, heldout_statistics = errors_and_statistics(20, 20, seed=0)
    with pytest.raises(ValueError, match="need at least 2 members and 6 held-out images for 3 statistics"):
        found(members, heldout[:, :5], members_statistics, heldout_statistics[:5])
    for changed in ((members[:1], heldout), (members[:, :9], heldout), (members, heldout[:, :9])):
        with pytest.raises(ValueError, match="need errors"):
            found(*changed, members_statistics, heldout_statistics)
    with pytest.raises(FloatingPointError, match="log error is not finite at 40 places"):
        found(members * 0, heldout, members_statistics, heldout_statistics)
    with pytest.raises(FloatingPointError, match="statistic is not finite"):
        found(members, heldout, members_statistics / 0, heldout_statistics)
