"""The sampler against distributions whose posterior mean is known."""

import pytest
import torch
from torch import nn

from unimodal_monitor.copies.sampler import heun_forwards, heun_sample, sampling_sigmas
from unimodal_monitor.denoisers import EDMDenoiser, FlowDenoiser, Network, VPDenoiser
from unimodal_monitor.forward.noise import karras_sigmas

EIGENVALUES = torch.tensor([0.01, 0.25, 1.0, 4.0], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
BASIS = torch.linalg.qr(torch.arange(16, dtype=torch.float64).view(4, 4).sin()).Q


class Exact:
    """A denoiser in closed form, which expresses every level and counts its inputs."""

    network = nn.Identity()

    def __init__(self, posterior_mean) -> None:
        self.posterior_mean, self.num_inputs = posterior_mean, 0

    def __call__(self, noised, sigma):
        self.num_inputs += len(noised)
        return self.posterior_mean(noised, sigma.view(-1, *[1] * (noised.ndim - 1)))

    def snap(self, sigmas):
        return sigmas


def gaussian(noised, s):
    """Posterior mean of a Gaussian with eigenvectors BASIS."""
    return MEAN + (noised - MEAN) @ BASIS * (EIGENVALUES / (EIGENVALUES + s**2)) @ BASIS.T


def memorizer(points):
    """Posterior mean of equally likely points: a softmax over their distances."""

    def posterior_mean(noised, s):
        distances = (noised[:, None] - points).flatten(2).square().sum(2)
        weights = (-distances / (2 * s.view(-1, 1) ** 2)).softmax(1)
        return (weights @ points.flatten(1)).view_as(noised)

    return posterior_mean


def flow_of_a_gaussian(noise, sigma_max):
    """Where the probability flow takes the noise in closed form."""
    coordinates = (sigma_max * noise - MEAN) @ BASIS
    return MEAN + coordinates * (EIGENVALUES / (EIGENVALUES + sigma_max**2)).sqrt() @ BASIS.T


def worst_error(num_levels: int) -> float:
    noise = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigmas = karras_sigmas(num_levels, sigma_min=1e-4).flip(0)
    found = heun_sample(Exact(gaussian), noise, sigmas)
    return float((found - flow_of_a_gaussian(noise, 80.0)).abs().max())


def test_the_flow_of_a_gaussian_is_followed_to_second_order():
    """Twice the steps leave a quarter of the error."""
    errors = [worst_error(num_levels) for num_levels in (64, 128, 256)]
    assert errors[-1] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.25)


def test_samples_of_a_gaussian_have_its_mean_and_covariance():
    """To within the error of 4,000 samples; EDM's 18 steps would make the variances up to a fifth larger."""
    noise = torch.randn(4_000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    samples = heun_sample(Exact(gaussian), noise, karras_sigmas(60).flip(0))
    torch.testing.assert_close(samples.mean(0), MEAN, atol=0.1, rtol=0)
    in_basis = BASIS.T @ samples.T.cov() @ BASIS
    torch.testing.assert_close(in_basis.diagonal(), EIGENVALUES, atol=0, rtol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_of_a_memorizer_are_its_training_points(dtype):
    """Each is one of them, and none is left out."""
    generator = torch.Generator().manual_seed(2)
    points = 0.5 * torch.randn(5, 3, 4, 4, generator=generator, dtype=dtype)
    noise = torch.randn(200, 3, 4, 4, generator=generator, dtype=dtype)
    samples = heun_sample(Exact(memorizer(points)), noise, karras_sigmas(18).flip(0))
    distances = (samples[:, None] - points).flatten(2).norm(dim=2)
    assert float(distances.min(1).values.max()) < 1e-4
    assert set(distances.argmin(1).tolist()) == set(range(5))
    assert samples.dtype == dtype


class Velocity(nn.Module):
    """A memorizer as a flow-matching network, which takes (1 - t) clean + t noise."""

    def forward(self, x, t):
        t = t.view(-1, 1, 1, 1).clamp(1e-6, 1 - 1e-6)
        return (x - memorizer(POINTS)(x / (1 - t), t / (1 - t))) / t


class Epsilon(nn.Module):
    """A memorizer as a DDPM network, which takes variance-preserving images and a timestep."""

    def forward(self, x, timestep):
        s = ((1 - ALPHAS[timestep]) / ALPHAS[timestep]).sqrt().view(-1, 1, 1, 1)
        noised = x * (1 + s**2).sqrt()
        return (noised - memorizer(POINTS)(noised, s)) / s


POINTS = 0.5 * torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(3))
ALPHAS = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)
MEMORIZERS = {
    "flow": FlowDenoiser(Network(Velocity())),
    "ddpm": VPDenoiser(Network(Epsilon()), alphas_cumprod=ALPHAS),
}


@pytest.mark.parametrize("denoiser", MEMORIZERS.values(), ids=MEMORIZERS)
def test_a_memorizer_of_any_family_puts_out_its_points(denoiser):
    """Velocity and noise prediction, at the levels that each schedule has."""
    noise = torch.randn(50, 1, 4, 4, generator=torch.Generator().manual_seed(4))
    samples = heun_sample(denoiser, noise, sampling_sigmas(denoiser, std=0.5))
    distances = (samples[:, None] - POINTS).flatten(2).norm(dim=2)
    assert float(distances.min(1).values.max()) < 1e-3
    assert set(distances.argmin(1).tolist()) == set(range(5))


def test_the_evaluations_are_counted():
    """35 for the usual 18 levels, as EDM reports."""
    denoiser, sigmas = Exact(gaussian), karras_sigmas(18).flip(0)
    heun_sample(denoiser, torch.zeros(3, 4, dtype=torch.float64), sigmas)
    assert heun_forwards(sigmas) == 35
    assert denoiser.num_inputs == 3 * 35


class Line(nn.Module):
    def forward(self, x, t):
        return x


SCHEDULES = {
    "edm": EDMDenoiser(Network(Line())),
    "flow": FlowDenoiser(Network(Line())),
    "ddpm": VPDenoiser(Network(Line()), alphas_cumprod=(1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)),
    "ldm": VPDenoiser(
        Network(Line()), alphas_cumprod=(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).cumprod(0)
    ),
}


@pytest.mark.parametrize("denoiser", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("std", [0.5, 0.9])
def test_every_family_is_sampled_at_levels_it_expresses(denoiser, std):
    """From its own highest level, or EDM's, to its own lowest, in (nearly) as many steps as were asked for."""
    sigmas = sampling_sigmas(denoiser, std=std)
    assert 16 <= len(sigmas) <= 18
    torch.testing.assert_close(denoiser.snap(sigmas.flip(0)).flip(0), sigmas)
    assert (sigmas[:-1] > sigmas[1:]).all()
    own = getattr(denoiser, "_sigmas", torch.tensor([0.004 * std, 160 * std]))
    assert float(sigmas[0]) == pytest.approx(min(160 * std, float(own.max())), rel=0.02)
    assert float(sigmas[-1]) == pytest.approx(max(0.004 * std, float(own.min())), rel=0.02)


def test_the_usual_levels_are_those_of_edm():
    """For data of standard deviation 0.5."""
    torch.testing.assert_close(sampling_sigmas(SCHEDULES["edm"], std=0.5), karras_sigmas(18).flip(0))


class Nowhere(Exact):
    def snap(self, sigmas):
        return sigmas[:0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sampling_sigmas(Exact(gaussian), std=0.0), "std is 0.0"),
        (lambda: sampling_sigmas(Exact(gaussian), std=float("nan")), "std is nan"),
        (lambda: sampling_sigmas(Exact(gaussian), std=0.5, steps=2), "steps is 2"),
        (lambda: sampling_sigmas(Nowhere(gaussian), std=0.5), "expresses 0 levels"),
        (lambda: heun_sample(Exact(gaussian), torch.zeros(1, 4), torch.tensor([1.0, 2.0])), "descend"),
        (lambda: heun_sample(Exact(gaussian), torch.zeros(1, 4), torch.tensor([1.0, 0.0])), "positive"),
        (lambda: heun_sample(Exact(gaussian), torch.zeros(1, 4), torch.tensor([])), "positive"),
    ],
)
def test_impossible_levels_are_refused(call, message):
    """Before the network is run."""
    with pytest.raises(ValueError, match=message):
        call()
