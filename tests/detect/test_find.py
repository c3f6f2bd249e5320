"""What is found by itself in real jobs, and what is asked for."""

import copy

import pytest
import torch
from diffusers_jobs import Job, Precond, denoised, diffusers, scheduler, unet
from torch import nn

from unimodal_monitor.denoisers import EDMDenoiser, VPDenoiser
from unimodal_monitor.detect.find import find_denoiser, find_network


@pytest.mark.parametrize("name", ["DDPM", "DDIM", "EulerDiscrete"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_unet_and_scheduler_need_no_argument(name, prediction):
    """The usual Lightning job: `self.unet` and `self.scheduler`, whatever they are called."""
    job = Job(backbone=unet(), noise=scheduler(name, prediction_type=prediction))
    denoiser = find_denoiser(job)
    assert isinstance(denoiser, VPDenoiser)
    assert denoiser.prediction == prediction
    assert denoiser.network is job.backbone
    assert denoiser.weights_used == "raw"
    torch.testing.assert_close(denoiser.alphas_cumprod.float(), job.noise.alphas_cumprod)
    denoised(denoiser)


def test_epsilon_network_is_called_as_the_job_calls_it():
    """The answer is diffusers' own estimate of the clean images."""
    job = Job(net=unet(), scheduler=scheduler())
    noise, timestep = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([258])
    noisy = job.scheduler.add_noise(torch.ones(1, 3, 8, 8), noise, timestep)
    alpha_bar = job.scheduler.alphas_cumprod[258]
    with torch.no_grad():
        expected = (noisy - (1 - alpha_bar).sqrt() * job.net(noisy, timestep).sample) / alpha_bar.sqrt()
        result = find_denoiser(job)(noisy / alpha_bar.sqrt(), ((1 - alpha_bar) / alpha_bar).sqrt().reshape(1))
    torch.testing.assert_close(result, expected)


def test_network_that_takes_sigma_is_edm():
    """Outermost wins: the U-Net within the preconditioning is not the network."""
    job = Job(net=Precond())
    denoiser = find_denoiser(job)
    assert isinstance(denoiser, EDMDenoiser)
    assert denoiser.network is job.net
    denoised(denoiser)


def test_same_network_under_two_names_is_one():
    """`self.model = self.unet` is no second network, nor is it compiled, nor are copies that are averages."""
    net = unet()
    copies = {"unet_ema": copy.deepcopy(net), "average": torch.optim.swa_utils.AveragedModel(net)}
    assert find_network(Job(unet=torch.compile(net, backend="eager"), model=net, **copies)) == ("unet", net)


def test_frozen_network_is_not_the_one_that_is_trained():
    """ControlNet's base, or the teacher of a distillation."""
    job = Job(teacher=unet().requires_grad_(False), student=unet())
    assert find_network(job) == ("student", job.student)
    assert find_network(Job(only=job.teacher)) == ("only", job.teacher)


def test_network_is_given_by_module_by_name_or_is_the_owner_itself():
    """Every option has a plain string form."""
    wrapped = nn.ModuleDict({"diffusion_model": unet()})
    job = Job(model=wrapped, second=unet())
    assert find_network(job, net="model.diffusion_model") == ("model.diffusion_model", wrapped.diffusion_model)
    assert find_network(job, net=job.second) == ("second", job.second)
    assert find_network(job, net=job) == ("", job)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_objects_of_any_kind_in_a_job_are_no_obstacle():
    """A traced network of a metric has no signature; disabled loggers and lenient configurations have any attribute."""

    class Anything:
        def __getattr__(self, name):
            return None if name.startswith("__") else self

    traced = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))
    job = Job(fid=traced, net=unet(), scheduler=scheduler(), log=Anything())
    denoiser = find_denoiser(job)
    assert (denoiser.network, denoiser.weights_used) == (job.net, "raw")


def test_average_is_used_unless_raw_weights_are_asked_for():
    """diffusers' EMAModel next to the network."""
    job = Job(net=unet(), scheduler=scheduler())
    job.ema = diffusers.training_utils.EMAModel(job.net.parameters())
    job.ema.step(job.net.parameters())
    assert find_denoiser(job).weights_used == "ema"
    assert find_denoiser(job, ema=False).weights_used == "raw"


@pytest.mark.parametrize(
    ("parts", "kwargs", "message"),
    [
        ({"a": unet(), "b": unet()}, {}, r"^net: .* are a \(UNet2DModel\), b \(UNet2DModel\); name one, net="),
        ({"body": nn.Linear(2, 2)}, {}, r"^net: .* are none; name one, net=.*body \(Linear\)"),
        ({"unet": unet()}, {"net": "uned"}, "^net='uned': Job has no 'uned'; did you mean unet"),
        ({"unet": unet()}, {"net": "unet.config"}, "^net='unet.config' is of type FrozenDict"),
        ({"unet": unet()}, {"net": 3}, "^net=3 is of type int"),
    ],
)
def test_network_that_is_not_plain_is_asked_for(parts, kwargs, message):
    """The message names what was found and the argument to give."""
    with pytest.raises(ValueError, match=message):
        find_denoiser(Job(**parts), **kwargs)
