"""AUC and its limits against scikit-learn and repeated draws."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from unimodal_monitor.signals.measured import Measured
from unimodal_monitor.signals.spread import auc_interval, delong, spread_auc


def scores(num_positive, num_negative, *, num_levels, distance=0.5):
    generator = np.random.default_rng(0)
    positive = generator.normal(distance, size=(num_levels, num_positive))
    return positive, generator.normal(size=(num_levels, num_negative))


def test_the_auc_is_scikit_learns():
    """Ties included."""
    positive, negative = (np.round(2 * values) for values in scores(30, 40, num_levels=3))
    found, _ = delong(positive, negative)
    for auc, *rows in zip(found, positive, negative, strict=True):
        assert auc == pytest.approx(roc_auc_score(np.repeat([1, 0], [30, 40]), np.concatenate(rows)))


@pytest.mark.parametrize(("distance", "truth"), [(0.0, 0.5), (2.0, 0.92135)])
def test_the_limits_cover_the_truth(distance, truth):
    """In 95 % of 1,000 draws or about."""
    measured = delong(*scores(60, 80, distance=distance, num_levels=1000))
    low, high = auc_interval(*measured, num_images=60, confidence=0.95)
    assert 0.93 < np.mean((low <= truth) & (truth <= high)) < 0.98


def test_sets_that_do_not_overlap_are_not_a_certainty():
    """20 images all in order happen with probability 2.5 % where the AUC is 0.83."""
    edge = 0.025 ** (1 / 20)
    found = auc_interval(np.array([1.0, 0.0]), np.zeros(2), num_images=20, confidence=0.95)
    np.testing.assert_allclose(found, [[edge, 0.0], [1.0, 1 - edge]])


def test_members_with_few_strong_features_are_told_from_balanced_heldout_images():
    """One-hot codes against even ones of the same norm, at the first level; alike at the second."""
    codes = 0.01 * torch.rand(3, 40, 16, generator=torch.Generator().manual_seed(0)) + 0.25
    codes[0] += torch.eye(16)[torch.arange(40) % 16] - 0.25
    spreads = {"members_spread": codes[:2].std(2), "heldout_spread": codes[[2, 2]].std(2)}
    found = spread_auc(Measured(torch.tensor([0.1, 0.2]), 0.5, ("mid",), "gain", **spreads))
    assert found.value[0] == found.high[0] == 1
    assert found.low[0] > 0.9
    assert found.low[1] < found.neutral == 0.5 < found.high[1]
