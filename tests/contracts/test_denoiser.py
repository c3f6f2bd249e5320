"""The contract of every denoiser, on Gaussian data whose posterior mean is known."""

from collections.abc import Callable

import pytest
import torch
from posterior import PosteriorMean
from torch import Tensor, nn

from unimodal_monitor.denoisers import Denoiser, EDMDenoiser, FlowDenoiser, VPDenoiser, as_denoiser
from unimodal_monitor.denoisers.memorizer import Memorizer
from unimodal_monitor.theory.molrg import MoLRG

STD = 0.5
ALPHAS_CUMPROD = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)


def exact(answer: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
    """A network that turns (images, time) into the exact prediction of its family, in float64."""
    net = nn.Module()
    net.forward = lambda x, t: answer(x.double(), t.reshape(-1, 1, 1, 1)).float()
    return net


def posterior_mean(noised: Tensor, sigma: Tensor) -> Tensor:
    """Of data from N(0, STD^2) in every pixel."""
    return noised * STD**2 / (STD**2 + sigma**2)


def vp(prediction: str) -> Denoiser:
    def answer(x: Tensor, timestep: Tensor) -> Tensor:
        assert timestep.dtype == torch.int64
        alpha_bar = ALPHAS_CUMPROD.double()[timestep]
        clean = posterior_mean(x / alpha_bar.sqrt(), ((1 - alpha_bar) / alpha_bar).sqrt())
        noise = (x - alpha_bar.sqrt() * clean) / (1 - alpha_bar).sqrt()
        v = alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clean
        return {"sample": clean, "epsilon": noise, "v_prediction": v}[prediction]

    return VPDenoiser(exact(answer), alphas_cumprod=ALPHAS_CUMPROD, prediction=prediction)


def flow(noise_at: int, shift: float = 1.0, time_scale: float = 1.0) -> Denoiser:
    def answer(x: Tensor, time: Tensor) -> Tensor:
        u = time.double() / time_scale
        u = u if noise_at == 1 else 1 - u
        t = shift * u / (1 + (shift - 1) * u)
        clean = posterior_mean(x / (1 - t), t / (1 - t))
        noise = (x - (1 - t) * clean) / t
        return noise - clean if noise_at == 1 else clean - noise

    return FlowDenoiser(exact(answer), noise_at=noise_at, shift=shift, time_scale=time_scale)


GAUSSIAN = {
    "edm": lambda: EDMDenoiser(exact(lambda x, sigma: posterior_mean(x, sigma.double()))),
    "vp epsilon": lambda: vp("epsilon"),
    "vp v": lambda: vp("v_prediction"),
    "vp sample": lambda: vp("sample"),
    "flow": lambda: flow(1),
    "flow, time 1 is data": lambda: flow(0),
    "flow, times to 1000": lambda: flow(1, time_scale=1000.0),
    "flow, shifted": lambda: flow(1, shift=3.0),
    "flow, all at once": lambda: flow(0, shift=3.0, time_scale=1000.0),
}
DENOISERS = GAUSSIAN | {
    "memorizer": lambda: Memorizer(torch.eye(48).reshape(48, 3, 4, 4)),
    "posterior mean": lambda: PosteriorMean(MoLRG(num_classes=3, rank=16)),
    "function": lambda: as_denoiser(lambda x, sigma: posterior_mean(x, sigma.reshape(-1, 1, 1, 1)), net=nn.Identity()),
}


each_denoiser = pytest.mark.parametrize("make", DENOISERS.values(), ids=DENOISERS)
each_gaussian = pytest.mark.parametrize("make", GAUSSIAN.values(), ids=GAUSSIAN)
WANTED = torch.tensor([0.0001, 0.002, 0.0021, 0.05, 0.3, 1.0, 1.0001, 2.0, 1e9, torch.inf], dtype=torch.float64)


@each_gaussian
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_network_gives_the_posterior_mean(make, dtype):
    """Scaling, timestep and prediction type cancel: every family gives the same denoised images."""
    denoiser = make()
    sigmas = denoiser.snap(torch.tensor([0.01, 0.05, 0.3, 1.0, 2.0], dtype=dtype))
    clean = STD * torch.randn(len(sigmas), 3, 4, 4, generator=torch.Generator().manual_seed(0))
    levels = sigmas.float().reshape(-1, 1, 1, 1)
    denoised = denoiser(clean + levels, sigmas)
    assert denoised.dtype == torch.float32
    torch.testing.assert_close(denoised, posterior_mean(clean + levels, levels), atol=1e-5, rtol=0)


@each_denoiser
def test_snapped_levels_ascend_without_repeats_and_are_finite(make):
    """Whatever is requested, the result can be plotted and expressed; it is empty where no level is in reach."""
    denoiser = make()
    snapped = denoiser.snap(WANTED)
    assert snapped.dtype == torch.float64
    assert (snapped.diff() > 0).all()
    assert snapped.isfinite().all()
    assert 4 <= len(snapped) <= len(WANTED)
    assert torch.equal(denoiser.snap(snapped), snapped)
    assert denoiser.snap(WANTED[-1:]).shape == (0,)


@each_denoiser
def test_random_state_is_untouched(make):
    """A denoiser draws nothing."""
    denoiser = make()
    before = torch.get_rng_state()
    denoiser(torch.zeros(2, 3, 4, 4), denoiser.snap(torch.tensor([0.05, 1.0])))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (VPDenoiser, {"alphas_cumprod": ALPHAS_CUMPROD, "prediction": "eps"}, "prediction is 'eps'"),
        (VPDenoiser, {"alphas_cumprod": torch.zeros(9)}, r"alphas_cumprod of shape \(9,\) has 0 values"),
        (FlowDenoiser, {"noise_at": 2}, "noise_at is 2"),
        (FlowDenoiser, {"time_scale": 0}, "must be positive"),
        (FlowDenoiser, {"shift": -1.0}, "must be positive"),
    ],
)
def test_wrong_argument_is_named(make, arguments, message):
    """Before any work."""
    with pytest.raises(ValueError, match=message):
        make(nn.Identity(), **arguments)
