"""The sampler against distributions whose posterior mean is known."""

import pytest
import torch
from torch import nn

from unimodal_monitor.copies.sampler import heun_forwards, heun_sample, sampling_sigmas
from unimodal_monitor.denoisers import Denoiser, EDMDenoiser, FlowDenoiser, VPDenoiser
from unimodal_monitor.denoisers.memorizer import Memorizer
from unimodal_monitor.forward.noise import karras_sigmas

EIGENVALUES = torch.tensor([0.01, 0.25, 1.0, 4.0], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
BASIS = torch.linalg.qr(torch.arange(16, dtype=torch.float64).view(4, 4).sin()).Q
POINTS = 0.5 * torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(3))
ALPHAS = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)
EDM18 = karras_sigmas(18).flip(0)


class Gaussian(Denoiser):
    """Posterior mean of a Gaussian with eigenvectors BASIS; counts its inputs."""

    num_inputs = 0

    def __call__(self, noised, sigma):
        self.num_inputs += len(noised)
        return MEAN + (noised - MEAN) @ BASIS * (EIGENVALUES / (EIGENVALUES + sigma[:, None] ** 2)) @ BASIS.T


def noise(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_flow_of_a_gaussian_is_followed_to_second_order():
    """Twice the steps leave a quarter of the error against the closed form."""
    start, shrinkage = noise(50, 4), (EIGENVALUES / (EIGENVALUES + 80**2)).sqrt()
    expected = MEAN + (80 * start - MEAN) @ BASIS * shrinkage @ BASIS.T
    schedules = [karras_sigmas(num_levels, sigma_min=1e-4).flip(0) for num_levels in (64, 128, 256)]
    errors = [float((heun_sample(Gaussian(), start, sigmas) - expected).abs().max()) for sigmas in schedules]
    assert errors[-1] < 1e-3
    assert [errors[0] / errors[1], errors[1] / errors[2]] == pytest.approx([4, 4], rel=0.25)


def test_samples_of_a_gaussian_have_its_mean_and_covariance():
    """To within the error of 4,000 samples; with EDM's 18 steps the variances are up to a fifth larger."""
    samples = heun_sample(Gaussian(), noise(4_000, 4, seed=1), karras_sigmas(60).flip(0))
    torch.testing.assert_close(samples.mean(0), MEAN, atol=0.1, rtol=0)
    in_basis = BASIS.T @ samples.T.cov() @ BASIS
    torch.testing.assert_close(in_basis.diagonal(), EIGENVALUES, atol=0, rtol=0.1)


class Velocity(nn.Module):
    """A memorizer as a flow-matching network, which takes (1 - t) clean + t noise."""

    def forward(self, x, t):
        t = t.clamp(1e-6, 1 - 1e-6)
        s = t.view(-1, 1, 1, 1)
        return (x - Memorizer(POINTS)(x / (1 - s), t / (1 - t))) / s


class Epsilon(nn.Module):
    """A memorizer as a DDPM network, which takes variance-preserving images and a timestep."""

    def forward(self, x, timestep):
        sigma = ((1 - ALPHAS[timestep]) / ALPHAS[timestep]).sqrt()
        s = sigma.view(-1, 1, 1, 1)
        noised = x * (1 + s**2).sqrt()
        return (noised - Memorizer(POINTS)(noised, sigma)) / s


MEMORIZERS = {  # with the decreasing alphas that limit the levels
    "closed form": (Memorizer(POINTS), torch.tensor([1.0, 0.0])),
    "flow": (FlowDenoiser(Velocity()), torch.tensor([1.0, 0.0])),
    "ddpm": (VPDenoiser(Epsilon(), alphas_cumprod=ALPHAS), ALPHAS),
}
each_memorizer = pytest.mark.parametrize(("denoiser", "alphas"), MEMORIZERS.values(), ids=MEMORIZERS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_memorizer
def test_samples_of_a_memorizer_of_any_family_are_its_training_points(denoiser, alphas, dtype):
    """Each is one of them, none is left out, and the precision is that of the noise."""
    samples = heun_sample(denoiser, noise(50, 1, 4, 4, seed=4, dtype=dtype), sampling_sigmas(denoiser, std=0.5))
    distances = (samples[:, None] - POINTS).flatten(2).norm(dim=2)
    assert float(distances.min(1).values.max()) < 1e-3
    assert set(distances.argmin(1).tolist()) == set(range(5))
    assert samples.dtype == dtype


def test_the_usual_levels_and_evaluations_are_those_of_edm():
    """18 levels take 35 evaluations, for data of standard deviation 0.5."""
    torch.testing.assert_close(sampling_sigmas(EDMDenoiser(nn.Identity()), std=0.5), EDM18)
    heun_sample(denoiser := Gaussian(), noise(3, 4), EDM18)
    assert denoiser.num_inputs == 3 * heun_forwards(EDM18) == 3 * 35


@each_memorizer
@pytest.mark.parametrize("std", [0.5, 0.9])
def test_every_family_is_sampled_at_levels_it_expresses(denoiser, alphas, std):
    """Between the ends of its schedule or of EDM's grid, in (nearly) as many steps as asked for."""
    sigmas = sampling_sigmas(denoiser, std=std)
    lowest, highest = ((1 - alphas[[0, -1]]) / alphas[[0, -1]]).sqrt().tolist()
    assert 16 <= len(sigmas) <= 18
    torch.testing.assert_close(denoiser.snap(sigmas.flip(0)).flip(0), sigmas)
    assert float(sigmas[0]) == pytest.approx(min(160 * std, highest), rel=0.02)
    assert float(sigmas[-1]) == pytest.approx(max(0.004 * std, lowest), rel=0.02)


class Nowhere(Gaussian):
    def snap(self, sigmas):
        return sigmas[:0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sampling_sigmas(Gaussian(), std=0.0), "std is 0.0"),
        (lambda: sampling_sigmas(Gaussian(), std=float("nan")), "std is nan"),
        (lambda: sampling_sigmas(Gaussian(), std=0.5, steps=2), "steps is 2"),
        (lambda: sampling_sigmas(Nowhere(), std=0.5), "expresses 0 levels"),
        (lambda: heun_sample(Gaussian(), noise(1, 4), torch.tensor([1.0, 2.0])), "descend"),
        (lambda: heun_sample(Gaussian(), noise(1, 4), torch.tensor([1.0, 0.0])), "positive"),
        (lambda: heun_sample(Gaussian(), noise(1, 4), torch.tensor([])), "positive"),
    ],
)
def test_impossible_levels_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
