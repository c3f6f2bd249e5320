"""What every denoiser promises, on Gaussian data whose posterior mean is known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unimodal_monitor.denoisers import Denoiser, EDMDenoiser, FlowDenoiser, Network, VPDenoiser
from unimodal_monitor.denoisers.memorizer import Memorizer
from unimodal_monitor.theory.molrg import MoLRG
from unimodal_monitor.theory.posterior import PosteriorMean

STD = 0.5
"""Of the data, N(0, STD^2) in every pixel, so that the posterior mean is noised STD^2 / (STD^2 + sigma^2)."""

ALPHAS_CUMPROD = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)


class Exact(nn.Module):
    """A network that turns (images, time) into the exact answer of its family, in float64."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.answer(x.double(), t.reshape(-1, 1, 1, 1)).float()


def posterior_mean(noised: Tensor, sigma: Tensor) -> Tensor:
    return noised * STD**2 / (STD**2 + sigma**2)


def edm() -> Denoiser:
    return EDMDenoiser(Network(Exact(lambda x, sigma: posterior_mean(x, sigma.double()))))


def vp(prediction: str) -> Denoiser:
    def answer(x: Tensor, timestep: Tensor) -> Tensor:
        assert timestep.dtype == torch.int64
        alpha_bar = ALPHAS_CUMPROD.double()[timestep]
        clean = posterior_mean(x / alpha_bar.sqrt(), ((1 - alpha_bar) / alpha_bar).sqrt())
        noise = (x - alpha_bar.sqrt() * clean) / (1 - alpha_bar).sqrt()
        v = alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clean
        return {"sample": clean, "epsilon": noise, "v_prediction": v}[prediction]

    return VPDenoiser(Network(Exact(answer)), alphas_cumprod=ALPHAS_CUMPROD, prediction=prediction)


def flow(noise_at: int, shift: float = 1.0, time_scale: float = 1.0) -> Denoiser:
    def answer(x: Tensor, time: Tensor) -> Tensor:
        u = time.double() / time_scale
        u = u if noise_at == 1 else 1 - u
        t = shift * u / (1 + (shift - 1) * u)
        clean = posterior_mean(x / (1 - t), t / (1 - t))
        noise = (x - (1 - t) * clean) / t
        return noise - clean if noise_at == 1 else clean - noise

    return FlowDenoiser(Network(Exact(answer)), noise_at=noise_at, shift=shift, time_scale=time_scale)


DENOISERS = [
    pytest.param(edm, id="edm"),
    pytest.param(lambda: vp("epsilon"), id="vp epsilon"),
    pytest.param(lambda: vp("v_prediction"), id="vp v"),
    pytest.param(lambda: vp("sample"), id="vp sample"),
    pytest.param(lambda: flow(1), id="flow"),
    pytest.param(lambda: flow(0), id="flow, time 1 is data"),
    pytest.param(lambda: flow(1, time_scale=1000.0), id="flow, times to 1000"),
    pytest.param(lambda: flow(1, shift=3.0), id="flow, shifted"),
    pytest.param(lambda: flow(0, shift=3.0, time_scale=1000.0), id="flow, all at once"),
]
"""Of a network that is exact for the Gaussian data."""

CLOSED_FORMS = [
    pytest.param(lambda: Memorizer(torch.eye(48).reshape(48, 3, 4, 4)), id="memorizer"),
    pytest.param(lambda: PosteriorMean(MoLRG(num_classes=3, rank=16)), id="posterior mean"),
]
"""Exact for other data."""


@pytest.fixture(params=DENOISERS + CLOSED_FORMS)
def denoiser(request) -> Denoiser:
    return request.param()


@pytest.fixture(params=DENOISERS)
def gaussian_denoiser(request) -> Denoiser:
    return request.param()


def wanted() -> Tensor:
    return torch.tensor([0.0001, 0.002, 0.0021, 0.05, 0.3, 1.0, 1.0001, 2.0, 1e9, torch.inf], dtype=torch.float64)


def test_denoiser_follows_the_protocol(denoiser):
    """A call, a network to hook, and levels to choose from."""
    assert isinstance(denoiser, Denoiser)
    assert isinstance(denoiser.network, nn.Module)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_network_gives_the_posterior_mean(gaussian_denoiser, dtype):
    """Scaling, timestep and prediction type cancel: every family gives the same denoised images."""
    sigmas = gaussian_denoiser.snap(torch.tensor([0.01, 0.05, 0.3, 1.0, 2.0], dtype=dtype))
    clean = STD * torch.randn(len(sigmas), 3, 4, 4, generator=torch.Generator().manual_seed(0))
    noised = clean + sigmas.float().reshape(-1, 1, 1, 1) * torch.ones_like(clean)
    denoised = gaussian_denoiser(noised, sigmas)
    assert denoised.dtype == torch.float32
    torch.testing.assert_close(denoised, posterior_mean(noised, sigmas.float().reshape(-1, 1, 1, 1)), atol=1e-5, rtol=0)


def test_snapped_levels_ascend_without_repeats_and_are_finite(denoiser):
    """Whatever is wanted, what comes back can be plotted and expressed."""
    snapped = denoiser.snap(wanted())
    assert snapped.dtype == torch.float64
    assert (snapped.diff() > 0).all()
    assert snapped.isfinite().all()
    assert 4 <= len(snapped) <= len(wanted())
    assert torch.equal(denoiser.snap(snapped), snapped)


def test_no_wanted_level_in_reach_gives_no_level(denoiser):
    """An empty answer, not an error: the caller says what is missing."""
    assert denoiser.snap(torch.tensor([torch.inf])).shape == (0,)


def test_random_state_is_untouched(denoiser):
    """A denoiser draws nothing."""
    before = torch.get_rng_state()
    denoiser(torch.zeros(2, 3, 4, 4), denoiser.snap(torch.tensor([0.05, 1.0])))
    assert torch.equal(torch.get_rng_state(), before)
