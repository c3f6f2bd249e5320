"""The exact posterior mean against the general formula and against the paper's parametrisation."""

import pytest
import torch
from posterior import PosteriorMean

from unimodal_monitor.theory.molrg import MoLRG

MIXTURES = [
    pytest.param(MoLRG(3, 4, 0.3), id="orthogonal"),
    pytest.param(MoLRG(2, 3, 0.2, ambient_dim=20), id="in a larger space"),
    pytest.param(MoLRG(3, 3, 0.3, angle_deg=30.0), id="overlapping"),
    pytest.param(MoLRG(3, 3, 0.3, angle_deg=70.0, mean_distance=2.0), id="separated"),
]


def of_any_gaussians(data, noised, sigma):
    """Bayes' rule for a mixture of Gaussians by means and covariances, in float64."""
    x, means, logs, answers = noised.double(), data.means().double(), [], []
    basis = data.basis().double()
    for mean, subspace in zip(means, data.subspaces().double(), strict=True):
        own = subspace @ subspace.T
        covariance = own + data.delta**2 * (basis @ basis.T - own)
        noisy = torch.distributions.MultivariateNormal(mean, covariance + sigma**2 * torch.eye(data.dim).double())
        logs.append(noisy.log_prob(x))
        answers.append(mean + (x - mean) @ torch.linalg.inv(noisy.covariance_matrix) @ covariance)
    return (torch.stack(logs, 1).softmax(1)[:, :, None] * torch.stack(answers, 1)).sum(1)


def noised_samples(data, num, sigma):
    clean, _ = data.sample(num, seed=0)
    return clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("data", MIXTURES)
@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0, 3.0])
def test_denoised_samples_equal_bayes_rule(data, sigma):
    noised = noised_samples(data, 50, sigma)
    found = PosteriorMean(data)(noised, torch.full((50,), sigma))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), of_any_gaussians(data, noised, sigma), rtol=0, atol=1e-5)


def test_code_of_orthogonal_classes_is_the_papers():
    """h = D(x, sigma) U^T x with D of blocks xi + (zeta - xi) w_l, hooked by name."""
    data, sigma = MoLRG(3, 4, 0.3, ambient_dim=20), 0.4
    noised, denoiser, codes = noised_samples(data, 30, sigma), PosteriorMean(data), []
    with denoiser.network.get_submodule("code").register_forward_hook(lambda *call: codes.append(call[2])):
        denoised = denoiser(noised, torch.full((30,), sigma))
    h = (noised.double() @ data.basis().double()).reshape(30, 3, 4)
    energy, s2, d2 = h.square().sum(2), sigma**2, 0.3**2
    others = energy.sum(1, keepdim=True) - energy
    weights = (energy / (2 * s2 * (1 + s2)) + d2 * others / (2 * s2 * (d2 + s2))).softmax(1)
    zeta, xi = 1 / (1 + s2), d2 / (d2 + s2)
    expected = (h * (xi + (zeta - xi) * weights)[:, :, None]).flatten(1)
    torch.testing.assert_close(codes[0], expected)
    torch.testing.assert_close(denoised.double(), expected @ data.basis().double().T, rtol=0, atol=1e-6)


def test_samples_of_another_size_are_refused():
    with pytest.raises(ValueError, match="need samples of 15 numbers"):
        PosteriorMean(MoLRG())(torch.zeros(2, 16), torch.ones(2))
