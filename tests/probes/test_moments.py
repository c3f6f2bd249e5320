"""Sums over images against NumPy on all images at once."""

import numpy as np
import pytest
import torch
from torch import Tensor

from unimodal_monitor.probes.moments import Moments

K, N, D, C = 3, 50, 7, 4
LABELS = torch.randint(C, (N,), generator=torch.Generator().manual_seed(1))
FEATURES = torch.randn(K, N, D, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 2, D) + 3


def collected(*parts: slice, features: Tensor = FEATURES) -> Moments:
    moments = Moments(len(features), features.shape[2], C)
    for part in parts:
        moments.update(features[:, part], LABELS[part])
    return moments


def assert_same(first: Moments, second: Moments) -> None:
    for found, expected in zip(first.compute(), second.compute(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("mean", [0.0, 1e3, -1e5])
def test_moments_are_those_of_numpy(mean):
    """Mean, centred scatter and centred cross products of float32 features, level by level, means far from zero too."""
    features = torch.randn(K, N, D, generator=torch.Generator().manual_seed(0)) + mean
    mean_KD, scatter_KDD, cross_KDC = collected(slice(0, 20), slice(20, N), features=features).compute()
    y = np.eye(C)[LABELS]
    for level in range(K):
        x = features[level].double().numpy()
        centred = x - x.mean(0)
        np.testing.assert_allclose(mean_KD[level], x.mean(0), rtol=1e-12)
        np.testing.assert_allclose(scatter_KDD[level], centred.T @ centred, rtol=0, atol=1e-3 if mean == -1e5 else 1e-7)
        np.testing.assert_allclose(cross_KDC[level], centred.T @ (y - y.mean(0)), rtol=0, atol=1e-8)


def test_moments_do_not_depend_on_the_batches():
    """Batches of one, of many, and a ragged last one give the same figures."""
    whole = collected(slice(None))
    assert_same(collected(*(slice(i, i + 1) for i in range(N))), whole)
    assert_same(collected(slice(0, 32), slice(32, N)), whole)


def test_a_single_feature_at_a_single_level_keeps_its_axes():
    """torchmetrics squeezes results of one element."""
    shapes = [tuple(values.shape) for values in collected(slice(None), features=FEATURES[:1, :, :1]).centred()]
    assert shapes == [(1, 1), (1, 1, 1), (1, 1, C)]
