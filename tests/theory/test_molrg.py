"""The mixture: subspaces, means and samples."""

import math

import pytest
import torch

from unimodal_monitor.theory.molrg import MoLRG


@pytest.mark.parametrize(("num_classes", "angle_deg"), [(2, 30.0), (2, 90.0), (3, 60.0), (5, 45.0)])
def test_principal_angles_between_two_classes_are_those_asked_for(num_classes, angle_deg):
    """The cosines are the singular values of the product of two bases, which are 1 for a basis with itself."""
    subspaces = MoLRG(num_classes, 4, 0.2, angle_deg=angle_deg, ambient_dim=25).subspaces().double()
    cosines = torch.linalg.svdvals(subspaces.mT[:, None] @ subspaces)
    between = 1 - torch.eye(num_classes).double()
    expected = math.cos(math.radians(angle_deg)) ** between[:, :, None].expand_as(cosines)
    torch.testing.assert_close(cosines, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("data", [MoLRG(2, 3, 0.4, angle_deg=40.0), MoLRG(2, 3, 0.4, ambient_dim=9)])
def test_classes_have_the_documented_covariance(data):
    """Variance 1 in the subspace of the class, delta^2 in the rest of the span and 0 outside."""
    samples, labels = data.sample(60_000, seed=2)
    for k, subspace in enumerate(data.subspaces()):
        own, span = subspace @ subspace.T, data.basis() @ data.basis().T
        expected = own + 0.16 * (span - own)
        torch.testing.assert_close(torch.cov(samples[labels == k].T), expected, rtol=0, atol=0.03)


def test_separated_means_are_orthogonal_to_the_span_and_to_each_other():
    data = MoLRG(3, 2, 0.3, mean_distance=4.0, ambient_dim=12)
    torch.testing.assert_close(data.means() @ data.means().T, 16 * torch.eye(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(data.means() @ data.basis(), torch.zeros(3, 6), rtol=0, atol=1e-5)
    samples, labels = data.sample(9_000, seed=0)
    torch.testing.assert_close(samples[labels == 2].mean(0), data.means()[2], rtol=0, atol=0.1)


@pytest.mark.parametrize("data", [MoLRG(), MoLRG(2, 5, 0.2, ambient_dim=50, angle_deg=30.0), MoLRG(mean_distance=3.0)])
def test_std_is_the_root_mean_square_of_the_samples(data):
    assert data.sample(20_000, seed=1)[0].square().mean().sqrt().item() == pytest.approx(data.std, rel=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "at least 2 classes"),
        ({"rank": 0}, "of rank 0"),
        ({"delta": 0.0}, "delta .* got 0.0"),
        ({"delta": 1.5}, "delta .* got 1.5"),
        ({"ambient_dim": 14}, "ambient_dim of at least 15, got 14"),
        ({"ambient_dim": 15, "mean_distance": 1.0}, "ambient_dim of at least 18"),
        ({"angle_deg": 0.0}, "angle_deg .* got 0.0"),
        ({"angle_deg": 120.0}, "angle_deg .* got 120.0"),
        ({"mean_distance": -1.0}, "mean_distance .* got -1.0"),
    ],
)
def test_impossible_mixtures_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MoLRG(**options)
