"""Sums over images against NumPy on all images at once."""

import numpy as np
import torch

from unimodal_monitor.probes.moments import Moments

K, N, D, C = 3, 50, 7, 4
LABELS = torch.randint(C, (N,), generator=torch.Generator().manual_seed(1))
FEATURES = torch.randn(K, N, D, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 2, D) + 3


def collected(*parts: slice) -> Moments:
    moments = Moments(K, D, C)
    for part in parts:
        moments.update(FEATURES[:, part], LABELS[part])
    return moments


def test_moments_are_those_of_numpy():
    """Mean, centred scatter and centred cross products, level by level."""
    mean_KD, scatter_KDD, cross_KDC = collected(slice(None)).compute()
    y = np.eye(C)[LABELS]
    for level in range(K):
        x = FEATURES[level].double().numpy()
        centred = x - x.mean(0)
        np.testing.assert_allclose(mean_KD[level], x.mean(0), rtol=1e-12)
        np.testing.assert_allclose(scatter_KDD[level], centred.T @ centred, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(cross_KDC[level], centred.T @ (y - y.mean(0)), rtol=1e-9, atol=1e-9)


def test_moments_do_not_depend_on_the_batches():
    """Batches of one, of many, and a ragged last one give the same figures."""
    whole = collected(slice(None)).compute()
    for parts in ([slice(i, i + 1) for i in range(N)], [slice(0, 32), slice(32, N)]):
        for found, expected in zip(collected(*parts).compute(), whole, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-9)


def test_two_shards_reduced_by_torchmetrics_are_the_whole():
    """Every state is reduced by the function that torchmetrics applies to the stacked states of all ranks."""
    shards = collected(slice(0, 20)), collected(slice(20, N))
    whole, merged = collected(slice(None)), Moments(K, D, C)
    for name, reduction in merged._reductions.items():
        setattr(merged, name, reduction(torch.stack([getattr(shard, name) for shard in shards])))
    assert merged.count == N
    for found, expected in zip(merged.compute(), whole.compute(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-9)


def test_moments_stay_in_double_precision():
    """Lightning and `.float()` move metrics along with a module; the sums would lose half their digits."""
    moments = collected(slice(None)).float().half()
    assert moments.sum_xx_KDD.dtype == torch.float64
