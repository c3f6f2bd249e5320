"""Which calling convention a noise schedule stands for."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers_jobs import Job, scheduler, unet
from torch import nn

from unimodal_monitor.denoisers import FlowDenoiser, VPDenoiser
from unimodal_monitor.detect.find import find_denoiser
from unimodal_monitor.detect.schedule import prediction_of

MOCHI = scheduler("FlowMatchEulerDiscrete")  # with an option that diffusers 0.30 does not have
MOCHI.register_to_config(invert_sigmas=True)


def test_buffers_on_the_owner_are_a_schedule():
    """LDM registers `alphas_cumprod` on the LightningModule and calls the prediction `parameterization`."""
    job = Job(net=unet(), parameterization="v")
    job.register_buffer("alphas_cumprod", scheduler().alphas_cumprod)
    assert find_denoiser(job).prediction == "v_prediction"


def test_equivalent_schedulers_are_one():
    """DDPM for training and DDIM for sampling."""
    job = Job(net=unet(), train=scheduler(), _sample=scheduler("DDIM"))
    assert isinstance(find_denoiser(job), VPDenoiser)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("flow", {"noise_at": 1, "time_scale": 1}),
        ("flow:data", {"noise_at": 0, "time_scale": 1}),
        ("flow:x1000", {"noise_at": 1, "time_scale": 1000}),
        ("flow:data:x1000", {"noise_at": 0, "time_scale": 1000}),
        ("v", {"prediction": "v_prediction"}),
        ("a:v", {"prediction": "v_prediction"}),
        ("cosine:v:data", {"path": "cosine", "prediction": "v_prediction", "noise_at": 0}),
        (scheduler(prediction_type="sample"), {"prediction": "sample"}),
        (MOCHI, {"noise_at": 0, "shift": 1, "time_scale": 1000}),
        (partial(FlowDenoiser, shift=3.0), {"shift": 3.0}),
    ],
)
def test_schedule_is_given_by_word_by_name_by_object_or_by_function(schedule, expected):
    """An argument goes before what would be found; `invert_sigmas` turns the time axis round (Mochi)."""
    job = Job(net=unet(), a=scheduler(), v=scheduler(prediction_type="v_prediction"))
    denoiser = find_denoiser(job, schedule=schedule)
    assert {name: getattr(denoiser, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("attribute", "value", "prediction"),
    [
        ("parameterization", "eps", "epsilon"),
        ("parameterization", "x0", "sample"),
        ("objective", "pred_v", "v_prediction"),
        ("objective", "pred_noise", "epsilon"),
        ("model_mean_type", SimpleNamespace(name="START_X", value=2), "sample"),
        ("nothing", None, None),
    ],
)
def test_every_dialect_of_prediction_is_understood(attribute, value, prediction):
    """diffusers, LDM, lucidrains, openai (an enum's member); silence means nothing."""
    schedule = nn.Module()
    setattr(schedule, attribute, value)
    assert prediction_of(schedule) == prediction


V, FLOW = scheduler(prediction_type="v_prediction"), scheduler("DPMSolverMultistep", prediction_type="flow_prediction")


@pytest.mark.parametrize(
    ("parts", "schedule", "message"),
    [
        ({}, None, "^schedule: .* found in Job are none; give schedule="),
        ({}, "flow:dta", "^schedule='flow:dta': 'dta' is no option"),
        ({}, "scheduler2", "^schedule='scheduler2': Job has no 'scheduler2'"),
        ({"p": scheduler()}, "p:w", "^schedule='p:w': need a prediction or a factor of time"),
        ({}, scheduler("EDMEuler"), "^schedule is of type EDMEulerScheduler"),
        ({"p": scheduler(), "q": V}, None, "^schedule: .* found in Job are p, q; give schedule="),
        ({}, "edm", "^schedule='edm', but the forward of UNet2DModel takes sample, timestep, .*not sigma"),
        ({}, scheduler("FlowMatchEulerDiscrete"), "^schedule: .* does not tell which times UNet2DModel gets; give"),
        ({}, scheduler().alphas_cumprod, "^schedule: nothing says what the network predicts .*; give schedule=partial"),
        ({"p": scheduler(), "predict_x0": True}, None, "^schedule: .* predicts epsilon, .* predict_x0 says sample"),
        ({"p": FLOW}, None, "^schedule: .* does not tell which times UNet2DModel gets"),
    ],
)
def test_schedule_that_is_not_plain_is_asked_for(parts, schedule, message):
    """The message names what was found and begins with the argument to give."""
    with pytest.raises(ValueError, match=message):
        find_denoiser(Job(net=unet(), **parts), schedule=schedule)


def test_hyperparameters_that_contradict_the_scheduler_are_named():
    """REPA and others keep the prediction in hparams alone."""
    job = Job(net=unet(), p=scheduler())
    job.save_hyperparameters({"prediction": "v"})
    with pytest.raises(ValueError, match=r"^schedule: .* hparams.prediction says v_prediction"):
        find_denoiser(job)


class Recorder(nn.Module):
    """Predicts zeros, and keeps the times that it gets."""

    def forward(self, x, t):
        self.times = t
        return torch.zeros_like(x)


class ADM:
    """The attributes of guided-diffusion's GaussianDiffusion and SpacedDiffusion."""

    def __init__(self, num: int, **attributes) -> None:
        self.alphas_cumprod = np.cumprod(1 - np.linspace(1e-4, 0.02, num))
        self.model_mean_type = SimpleNamespace(name="EPSILON", value=3)
        vars(self).update(attributes)


RESPACED = {"timestep_map": [100 * step + 7 for step in range(10)], "original_num_steps": 4000}


@pytest.mark.parametrize(
    ("schedule", "times"),
    [
        (ADM(4000, rescale_timesteps=False), lambda step: step),
        (ADM(4000, rescale_timesteps=True), lambda step: step * 1000 / 4000),
        (ADM(10, rescale_timesteps=False, **RESPACED), lambda step: 100 * step + 7),
        (ADM(10, rescale_timesteps=True, **RESPACED), lambda step: (100 * step + 7) / 4),
    ],
)
def test_rescaled_and_respaced_times_are_those_of_the_job(schedule, times):
    """guided-diffusion passes `timestep_map[t]`, times 1000 / original steps if it rescales."""
    steps = torch.tensor([1, 4, 9])
    alphas = torch.as_tensor(schedule.alphas_cumprod)[steps]
    job = Job(net=Recorder(), diffusion=schedule)
    find_denoiser(job, net="net")(torch.zeros(3, 1, 2, 2), ((1 - alphas) / alphas).sqrt())
    torch.testing.assert_close(job.net.times, times(steps), check_dtype=False)


class RFlowScheduler:
    """MONAI's, by its documented formulas: noisy = (1 - t / T) clean + t / T noise; the velocity is clean - noise."""

    num_train_timesteps = 1000


class FlowNet(nn.Module):
    """Velocity noise - data, exact for clean images of value 2, if time is from 0 (data) to 1 (noise)."""

    scale, sign = 1.0, 1.0

    def forward(self, hidden_states, timestep):
        t = timestep.reshape(-1, 1, 1, 1) / self.scale
        t = 1 - t if type(self).__name__.startswith("Lumina2") else t
        noise = (hidden_states - (1 - t) * 2.0) / t
        return self.sign * (noise - 2.0)


class FluxTransformer2DModel(FlowNet):
    pass


class Lumina2Transformer2DModel(FlowNet):
    """Mirrored time, negated velocity."""

    sign = -1.0


class SD3Transformer2DModel(FlowNet):
    scale = 1000.0


class MonaiNet(FlowNet):
    scale, sign = 1000.0, -1.0


@pytest.mark.parametrize(
    ("net", "schedule"),
    [
        (FluxTransformer2DModel(), scheduler("FlowMatchEulerDiscrete", shift=3.0)),
        (Lumina2Transformer2DModel(), scheduler("FlowMatchEulerDiscrete")),
        (SD3Transformer2DModel(), scheduler("FlowMatchEulerDiscrete")),
        (MonaiNet(), RFlowScheduler()),
    ],
)
def test_flow_networks_are_called_in_their_own_times(net, schedule):
    """A perfect network gives the clean images back, at all levels."""
    denoiser = find_denoiser(Job(net=net, noise_scheduler=schedule), net="net")
    noised, sigma = torch.randn(4, 3, 4, 4), torch.tensor([0.01, 0.3, 3.0, 30.0])
    torch.testing.assert_close(denoiser(noised, sigma), torch.full_like(noised, 2.0), atol=1e-3, rtol=0)


def test_lucidrains_learned_variance_trains_the_noise_whatever_its_objective_says():
    class LearnedGaussianDiffusion(nn.Module):
        objective = "pred_v"

    assert prediction_of(LearnedGaussianDiffusion()) == "epsilon"


def test_scaling_of_sgm_tells_the_prediction_or_is_refused():
    """sgm keeps the prediction in `denoiser.scaling`."""
    kinds = {name: type(name, (), {}) for name in ("VScaling", "VScalingWithEDMcNoise")}
    job = Job(net=unet(), denoiser=Job(scaling=kinds["VScaling"]()))
    job.register_buffer("alphas_cumprod", scheduler().alphas_cumprod)
    assert find_denoiser(job).prediction == "v_prediction"
    job.denoiser.scaling = kinds["VScalingWithEDMcNoise"]()
    with pytest.raises(ValueError, match=r"^schedule: denoiser.scaling is a VScalingWithEDMcNoise"):
        find_denoiser(job)


def test_network_inside_a_denoiser_is_no_denoiser():
    """k-diffusion's inner model has a parameter called `sigma` as well."""

    class Inner(nn.Linear):
        def forward(self, x, sigma):
            return super().forward(x)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner_model = Inner(2, 2)

        def forward(self, x, sigma):
            return self.inner_model(x, sigma)

    job = Job(model=Outer())
    with pytest.raises(ValueError, match="^net: Inner is called by Outer, which takes sigma"):
        find_denoiser(job, net="model.inner_model")
    assert find_denoiser(job).network is job.model
