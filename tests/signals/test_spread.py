"""AUC and its interval against a loop, a bootstrap and repeated draws."""

import numpy as np
import pytest
import torch

from unimodal_monitor.signals.spread import Spikiness, auc_interval, delong


def scores(num_positive, num_negative, *, seed, distance=0.5):
    generator = torch.Generator().manual_seed(seed)
    positive = torch.randn(1, num_positive, generator=generator, dtype=torch.float64) + distance
    return positive, torch.randn(1, num_negative, generator=generator, dtype=torch.float64)


def test_auc_is_the_share_of_pairs_in_order():
    """Mann-Whitney by a loop, with ties."""
    positive, negative = scores(30, 40, seed=0)
    positive, negative = (10 * positive).round(), (10 * negative).round()
    pairs = [(a > b) + 0.5 * (a == b) for a in positive[0].tolist() for b in negative[0].tolist()]
    assert float(delong(positive, negative)[0]) == pytest.approx(np.mean(pairs))


def test_the_error_is_that_of_a_bootstrap():
    """DeLong's closed form against 500 resamples of both sets."""
    positive, negative = scores(150, 100, seed=0)
    generator = torch.Generator().manual_seed(1)
    resampled = []
    for _ in range(500):
        rows = [torch.randint(x.shape[1], (x.shape[1],), generator=generator) for x in (positive, negative)]
        resampled.append(float(delong(positive[:, rows[0]], negative[:, rows[1]])[0]))
    assert float(delong(positive, negative)[1]) == pytest.approx(np.std(resampled), rel=0.1)


@pytest.mark.parametrize(("distance", "truth"), [(0.0, 0.5), (2.0, 0.92135)])
def test_the_interval_covers_the_truth(distance, truth):
    """In 95 % of 300 draws or about."""
    covered = []
    for seed in range(300):
        auc_K, error_K = delong(*scores(60, 80, seed=seed, distance=distance))
        low_K, high_K = auc_interval(auc_K, error_K, num_images=60, confidence=0.95)
        covered.append(float(low_K) <= truth <= float(high_K))
    assert 0.92 < np.mean(covered) < 0.99


def test_sets_that_do_not_overlap_are_not_a_certainty():
    """20 images all in order happen with probability 2.5 % where the AUC is 0.83."""
    for auc, low, high in ((1.0, 0.0250**0.05, 1.0), (0.0, 0.0, 1 - 0.0250**0.05)):
        found = auc_interval(torch.tensor([auc]), torch.zeros(1), num_images=20, confidence=0.95)
        assert [float(end) for end in found] == pytest.approx([low, high])


def test_spiky_members_are_told_from_balanced_heldout_images():
    """One-hot codes against even ones of the same norm, at the first level; alike at the second."""
    generator = torch.Generator().manual_seed(0)
    spiky = torch.eye(16)[torch.arange(40) % 16] + 0.01 * torch.rand(40, 16, generator=generator)
    even = 0.25 + 0.01 * torch.rand(50, 16, generator=generator)
    spikiness = Spikiness(2)
    spikiness.update(torch.stack([spiky, even[:40]]).std(2), torch.arange(40), is_member=True)
    spikiness.update(torch.stack([even, even]).std(2), torch.arange(50), is_member=False)
    found = spikiness.compute()
    assert found.auc_K[0] == 1
    assert found.low_K[1] < 0.5 < found.high_K[1]
    torch.testing.assert_close(found.members_KN[0], spiky.std(1).double())


def test_whole_features_are_refused():
    """One figure for each level and image."""
    with pytest.raises(ValueError, match=r"shape \(K, N\), got \(2, 5, 7\)"):
        Spikiness(2).update(torch.ones(2, 5, 7), torch.arange(5), is_member=True)
