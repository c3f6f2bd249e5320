"""The exact posterior mean against the general formula and against the paper's parametrisation."""

import pytest
import torch

from unimodal_monitor.theory.molrg import MoLRG
from unimodal_monitor.theory.posterior import PosteriorMean

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


@pytest.mark.parametrize("data", MIXTURES)
@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0, 3.0])
def test_denoised_samples_equal_bayes_rule(data, sigma):
    """Whatever the angle, the means and the space."""
    clean, _ = data.sample(50, seed=0)
    noised = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    found = PosteriorMean(data)(noised, torch.full((50,), sigma))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), of_any_gaussians(data, noised, sigma), rtol=0, atol=1e-5)


def test_code_of_orthogonal_classes_is_the_papers():
    """h = D(x, sigma) U^T x with D of blocks xi + (zeta - xi) w_l, hooked by name."""
    data, sigma = MoLRG(3, 4, 0.3, ambient_dim=20), 0.4
    noised = data.sample(30, seed=0)[0] + sigma * torch.randn(30, 20, generator=torch.Generator().manual_seed(1))
    denoiser, codes = PosteriorMean(data), []
    handle = denoiser.network.get_submodule("code").register_forward_hook(lambda *call: codes.append(call[2]))
    denoised = denoiser(noised, torch.full((30,), sigma))
    handle.remove()
    h = (noised.double() @ data.basis().double()).reshape(30, 3, 4)
    energy, s2, d2 = h.square().sum(2), sigma**2, 0.3**2
    others = energy.sum(1, keepdim=True) - energy
    weights = (energy / (2 * s2 * (1 + s2)) + d2 * others / (2 * s2 * (d2 + s2))).softmax(1)
    zeta, xi = 1 / (1 + s2), d2 / (d2 + s2)
    expected = (h * (xi + (zeta - xi) * weights)[:, :, None]).flatten(1)
    torch.testing.assert_close(codes[0], expected)
    torch.testing.assert_close(denoised.double(), expected @ data.basis().double().T, rtol=0, atol=1e-6)


def test_space_beyond_the_span_changes_nothing():
    """Noise there is removed whatever it is."""
    data = MoLRG(2, 3, 0.2, ambient_dim=12)
    noised = data.sample(10, seed=0)[0]
    beyond = torch.randn(10, 12, generator=torch.Generator().manual_seed(1))
    beyond -= beyond @ data.basis() @ data.basis().T
    denoiser, sigma = PosteriorMean(data), torch.full((10,), 0.5)
    torch.testing.assert_close(denoiser(noised + beyond, sigma), denoiser(noised, sigma), rtol=0, atol=1e-5)


def test_samples_of_another_size_are_told():
    """With the size that would do."""
    with pytest.raises(ValueError, match=r"samples of 15 numbers would do"):
        PosteriorMean(MoLRG())(torch.zeros(2, 16), torch.ones(2))
