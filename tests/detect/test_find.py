"""What is found by itself in real jobs, and what is asked for."""

import copy

import pytest
import torch
from diffusers_jobs import Job, Precond, denoised, diffusers, scheduler, unet
from torch import nn

from unimodal_monitor.denoisers import EDMDenoiser, FlowDenoiser, VPDenoiser, weights_used
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
    assert weights_used(denoiser) == "raw"
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


def test_flow_match_scheduler_means_flow_with_times_to_a_thousand():
    """diffusers feeds the actual, shifted sigma times 1000: the shift of the scheduler changes nothing."""
    denoiser = find_denoiser(Job(net=unet(), scheduler=scheduler("FlowMatchEulerDiscrete", shift=3.0)))
    assert isinstance(denoiser, FlowDenoiser)
    assert (denoiser.noise_at, denoiser.shift, denoiser.time_scale) == (1, 1.0, 1000.0)
    denoised(denoiser)


def test_network_that_takes_sigma_is_edm():
    """Outermost wins: the U-Net within the preconditioning is not the network."""
    job = Job(net=Precond())
    denoiser = find_denoiser(job)
    assert isinstance(denoiser, EDMDenoiser)
    assert denoiser.network is job.net
    denoised(denoiser)


def test_compiled_network_is_found_and_unwrapped():
    """`self.unet = torch.compile(self.unet)`."""
    net = unet()
    denoiser = find_denoiser(Job(net=torch.compile(net, backend="eager"), scheduler=scheduler()))
    assert denoiser.network is net
    denoised(denoiser)


def test_same_network_under_two_names_is_one():
    """`self.model = self.unet` is no second network, nor are copies that are averages."""
    net = unet()
    job = Job(unet=net, model=net, unet_ema=copy.deepcopy(net), average=torch.optim.swa_utils.AveragedModel(net))
    assert find_network(job) == ("unet", net)


def test_network_is_given_by_module_by_name_or_is_the_owner_itself():
    """Every option has a plain string form."""
    wrapped = nn.ModuleDict({"diffusion_model": unet()})
    job = Job(model=wrapped, second=unet())
    assert find_network(job, net="model.diffusion_model") == ("model.diffusion_model", wrapped.diffusion_model)
    assert find_network(job, net=job.second) == ("second", job.second)
    assert find_network(job, net=job) == ("", job)


def test_traced_modules_of_metrics_are_no_obstacle():
    """A traced Inception network has no signature."""
    traced = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))
    assert find_network(Job(fid=traced, net=unet()))[0] == "net"


def test_objects_that_answer_to_any_name_are_not_taken_for_anything():
    """Disabled loggers and lenient configurations have every attribute."""

    class Anything:
        def __getattr__(self, name):
            return None if name.startswith("__") else self

    job = Job(net=unet(), scheduler=scheduler(), log=Anything())
    assert weights_used(find_denoiser(job)) == "raw"


def test_average_is_found_and_used():
    """diffusers' EMAModel next to the network."""
    job = Job(net=unet(), scheduler=scheduler())
    job.ema = diffusers.training_utils.EMAModel(job.net.parameters())
    denoiser = find_denoiser(job)
    assert weights_used(denoiser) == "raw"
    raw = denoised(denoiser)
    job.ema.step(job.net.parameters())
    for tensor in job.ema.shadow_params:
        tensor.zero_()
    assert weights_used(denoiser) == "ema"
    assert not torch.equal(denoised(denoiser), raw)
    torch.testing.assert_close(denoised(find_denoiser(job, ema=False)), raw)


@pytest.mark.parametrize(
    ("parts", "kwargs", "message"),
    [
        ({"a": unet(), "b": unet()}, {}, r"2 networks, a \(UNet2DModel\), b \(UNet2DModel\); name one: net='...'"),
        ({"body": nn.Linear(2, 2)}, {}, r"net: no diffusion network.*body \(Linear\)"),
        ({"unet": unet()}, {"net": "uned"}, "net='uned': Job has no 'uned'; did you mean unet"),
        ({"unet": unet()}, {"net": "unet.config"}, "net='unet.config' is of type FrozenDict"),
        ({"unet": unet()}, {"net": 3}, "net is of type int"),
    ],
)
def test_network_that_is_not_plain_is_asked_for(parts, kwargs, message):
    """The message names what was found and the argument to give."""
    with pytest.raises(ValueError, match=message):
        find_denoiser(Job(**parts), **kwargs)
