"""The mixture: subspaces, means and samples."""

import math

import pytest
import torch

from unimodal_monitor.theory.molrg import MoLRG


def test_a_class_varies_in_its_own_subspace_and_not_outside_the_span():
    """Standard deviation 1 in its directions, delta in the others', 0 beyond."""
    data = MoLRG(num_classes=2, rank=3, delta=0.3, ambient_dim=9)
    samples, labels = data.sample(20_000, seed=1)
    coefficients = samples[labels == 1] @ data.basis()
    torch.testing.assert_close(coefficients.std(0), torch.tensor([0.3] * 3 + [1.0] * 3), rtol=0.05, atol=0)
    beyond = samples - samples @ data.basis() @ data.basis().T
    torch.testing.assert_close(beyond, torch.zeros_like(beyond), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("num_classes", "angle_deg"), [(2, 30.0), (2, 90.0), (3, 60.0), (5, 45.0)])
def test_principal_angles_between_each_two_classes_are_as_told(num_classes, angle_deg):
    """The cosines are the singular values of the product of two bases."""
    subspaces = MoLRG(num_classes, 4, 0.2, angle_deg=angle_deg, ambient_dim=25).subspaces().double()
    for k in range(num_classes):
        torch.testing.assert_close(subspaces[k].T @ subspaces[k], torch.eye(4).double(), rtol=0, atol=1e-5)
        for other in range(k):
            cosines = torch.linalg.svdvals(subspaces[k].T @ subspaces[other])
            expected = torch.full((4,), math.cos(math.radians(angle_deg))).double()
            torch.testing.assert_close(cosines, expected, rtol=0, atol=1e-5)


def test_overlapping_classes_have_the_covariance_that_is_documented():
    """1 in the class's subspace, delta^2 in the rest of the span."""
    data = MoLRG(2, 3, 0.4, angle_deg=40.0)
    samples, labels = data.sample(60_000, seed=2)
    for k, subspace in enumerate(data.subspaces()):
        own = subspace @ subspace.T
        expected = own + 0.16 * (torch.eye(6) - own)
        torch.testing.assert_close(torch.cov(samples[labels == k].T), expected, rtol=0, atol=0.03)


def test_separated_means_stand_apart_from_the_span_and_from_each_other():
    """At the distance told, in directions of their own."""
    data = MoLRG(3, 2, 0.3, mean_distance=4.0, ambient_dim=12)
    torch.testing.assert_close(data.means() @ data.means().T, 16 * torch.eye(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(data.means() @ data.basis(), torch.zeros(3, 6), rtol=0, atol=1e-5)
    samples, labels = data.sample(9_000, seed=0)
    torch.testing.assert_close(samples[labels == 2].mean(0), data.means()[2], rtol=0, atol=0.1)


@pytest.mark.parametrize("data", [MoLRG(), MoLRG(2, 5, 0.2, ambient_dim=50, angle_deg=30.0), MoLRG(mean_distance=3.0)])
def test_std_is_that_of_the_samples(data):
    """The root mean square of a coordinate, whatever the options."""
    assert data.sample(20_000, seed=1)[0].square().mean().sqrt().item() == pytest.approx(data.std, rel=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "num_classes = 1"),
        ({"rank": 0}, "rank = 0"),
        ({"delta": 0.0}, "delta = 0.0"),
        ({"delta": 1.5}, "delta = 1.5"),
        ({"ambient_dim": 14}, "ambient_dim = 14; these classes need at least 15"),
        ({"ambient_dim": 15, "mean_distance": 1.0}, "at least 18"),
        ({"angle_deg": 0.0}, "angle_deg = 0.0"),
        ({"angle_deg": 120.0}, "angle_deg = 120.0"),
        ({"mean_distance": -1.0}, "mean_distance = -1.0"),
    ],
)
def test_what_is_no_mixture_is_told(options, message):
    """By the name of the argument."""
    with pytest.raises(ValueError, match=message):
        MoLRG(**options)
