"""Which calling convention a noise schedule stands for."""

from functools import partial
from types import SimpleNamespace

import pytest
from diffusers_jobs import Job, scheduler, unet
from torch import nn

from unimodal_monitor.denoisers import FlowDenoiser, VPDenoiser
from unimodal_monitor.detect.find import find_denoiser
from unimodal_monitor.detect.schedule import prediction_of


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
        ("edm", {}),
        ("flow", {"noise_at": 1, "time_scale": 1}),
        ("flow:data", {"noise_at": 0, "time_scale": 1}),
        ("flow:x1000", {"noise_at": 1, "time_scale": 1000}),
        ("flow:data:x1000", {"noise_at": 0, "time_scale": 1000}),
        ("v", {"prediction": "v_prediction"}),
        (scheduler(prediction_type="sample"), {"prediction": "sample"}),
        (scheduler("FlowMatchEulerDiscrete", shift=3.0), {"noise_at": 1, "shift": 1, "time_scale": 1000}),
        (partial(FlowDenoiser, shift=3.0), {"shift": 3.0}),
    ],
)
def test_schedule_is_given_by_word_by_name_by_object_or_by_function(schedule, expected):
    """An argument goes before what would be found. diffusers feeds sigma times 1000, shifted already."""
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
        ("nothing", None, "epsilon"),
    ],
)
def test_every_dialect_of_prediction_is_understood(attribute, value, prediction):
    """diffusers, LDM, lucidrains, openai (an enum's member); no word means noise."""
    schedule = nn.Module()
    setattr(schedule, attribute, value)
    assert prediction_of(schedule) == prediction


V, FLOW = scheduler(prediction_type="v_prediction"), scheduler("DPMSolverMultistep", prediction_type="flow_prediction")


@pytest.mark.parametrize(
    ("parts", "schedule", "message"),
    [
        ({}, None, "^schedule: .* found in Job are none; give schedule="),
        ({}, "flow:dta", "^schedule='flow:dta': Job has no 'flow:dta'"),
        ({}, scheduler("EDMEuler"), "^schedule is of type EDMEulerScheduler"),
        ({"p": scheduler(), "q": V}, None, "^schedule: .* found in Job are p, q; give schedule="),
        ({"p": FLOW}, None, "^schedule: .* prediction is 'flow_prediction'"),
    ],
)
def test_schedule_that_is_not_plain_is_asked_for(parts, schedule, message):
    """The message names what was found and begins with the argument to give."""
    with pytest.raises(ValueError, match=message):
        find_denoiser(Job(net=unet(), **parts), schedule=schedule)
