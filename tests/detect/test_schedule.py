"""Which calling convention a noise schedule stands for."""

from functools import partial

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


def test_schedulers_that_say_the_same_are_one():
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
        (partial(FlowDenoiser, shift=3.0), {"shift": 3.0}),
    ],
)
def test_schedule_is_given_by_word_by_name_by_object_or_by_function(schedule, expected):
    """What is given goes before what would be found."""
    job = Job(net=unet(), a=scheduler(), v=scheduler(prediction_type="v_prediction"))
    denoiser = find_denoiser(job, schedule=schedule)
    assert {name: getattr(denoiser, name) for name in expected} == expected


class ModelMeanType:
    """A member of openai's enum: a name, and a value without meaning."""

    name, value = "START_X", 2


@pytest.mark.parametrize(
    ("attribute", "said", "prediction"),
    [
        ("parameterization", "eps", "epsilon"),
        ("parameterization", "x0", "sample"),
        ("objective", "pred_v", "v_prediction"),
        ("objective", "pred_noise", "epsilon"),
        ("model_mean_type", ModelMeanType, "sample"),
        ("nothing", None, "epsilon"),
    ],
)
def test_every_dialect_of_prediction_is_understood(attribute, said, prediction):
    """diffusers, LDM, lucidrains, openai; silence means noise."""
    schedule = nn.Module()
    setattr(schedule, attribute, said)
    assert prediction_of(schedule) == prediction


@pytest.mark.parametrize(
    ("parts", "kwargs", "message"),
    [
        ({"unet": unet()}, {}, "schedules found in Job are none; give schedule="),
        ({"unet": unet()}, {"schedule": "flow:dta"}, "schedule='flow:dta': Job has no 'flow:dta'"),
        ({"unet": unet()}, {"schedule": scheduler("EDMEuler")}, "schedule is of type EDMEulerScheduler"),
        (
            {"net": unet(), "p": scheduler(), "q": scheduler(prediction_type="v_prediction")},
            {},
            "schedules found in Job are p, q; give schedule=",
        ),
        (
            {"net": unet(), "p": scheduler("DPMSolverMultistep", prediction_type="flow_prediction")},
            {},
            "prediction is 'flow_prediction'",
        ),
    ],
)
def test_schedule_that_is_not_plain_is_asked_for(parts, kwargs, message):
    """The message names what was found and the argument to give."""
    with pytest.raises(ValueError, match=message):
        find_denoiser(Job(**parts), **kwargs)
