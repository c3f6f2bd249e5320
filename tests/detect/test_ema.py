"""Averaged weights are read from wherever a job keeps them, and nothing is swapped."""

import copy
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from unimodal_monitor.denoisers.network import Network
from unimodal_monitor.detect.ema import find_average


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("offset", torch.zeros(()))

    def forward(self, x, t):
        return self.linear(x) + self.offset


class LitEma(nn.Module):
    """The interface of CompVis' latent-diffusion: buffers under names without dots."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.m_name2s_name = {}
        self.register_buffer("num_updates", torch.tensor(0))
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self.m_name2s_name[name] = name.replace(".", "")
                self.register_buffer(name.replace(".", ""), parameter.clone().detach())

    def update(self) -> None:
        self.num_updates += 1
        for name in self.m_name2s_name.values():
            getattr(self, name).fill_(5.0)


class Job(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.wrapped = nn.Module()


def find(job, path="net", **kwargs):
    return find_average(job, job.get_submodule(path), path=path, **kwargs)


def is_five(tensors):
    return {name for name, tensor in tensors.items() if (tensor == 5).all()} >= {"linear.weight", "linear.bias"}


def fill(module):
    for parameter in module.parameters():
        parameter.data.fill_(5.0)


def lit_ema(job):
    job.model_ema = LitEma(job.net)
    return job.model_ema.update


def lit_ema_of_a_wrapper(job):
    job.wrapped.diffusion_model = job.net
    job.model_ema = LitEma(job.wrapped)
    return job.model_ema.update


def averaged_model(job, net=None):
    job.average = AveragedModel(job.net if net is None else net)

    def update():
        job.average.update_parameters(job.average.module)
        fill(job.average.module)

    return update


def diffusers_ema(job):
    job.ema = pytest.importorskip("diffusers.training_utils").EMAModel(job.net.parameters())

    def update():
        job.ema.step(job.net.parameters())
        for tensor in job.ema.shadow_params:
            tensor.fill_(5.0)

    return update


SOURCES = [
    lit_ema,
    lit_ema_of_a_wrapper,
    averaged_model,
    pytest.param(lambda job: averaged_model(job, torch.compile(job.net, backend="eager")), id="averaged compiled net"),
    diffusers_ema,
]


@pytest.mark.parametrize("keep", SOURCES)
def test_average_is_none_until_its_first_update_and_reaches_the_forward_afterwards(keep):
    """A copy of the initial weights is no average. The job's own weights stay as they are."""
    job = Job()
    update = keep(job)
    network, raw, filled = Network(job.net, weights=find(job)), copy.deepcopy(job.net), copy.deepcopy(job.net)
    fill(filled)
    inputs = torch.randn(3, 2), torch.zeros(3)
    assert network.weights_used == "raw"
    torch.testing.assert_close(network(*inputs), raw(*inputs))
    update()
    assert network.weights_used == "ema"
    torch.testing.assert_close(network(*inputs), filled(*inputs))
    torch.testing.assert_close(job.net.state_dict(), raw.state_dict(), rtol=0, atol=0)


def test_compiled_blocks_change_no_name():
    """torch.compile's wrappers may come between, in the network, in its average or in both."""
    job = Job()
    lit_ema(job)()
    job.net.linear = torch.compile(job.net.linear, backend="eager")
    assert (find(job)()["linear._orig_mod.weight"] == 5).all()


def test_copy_under_a_name_like_ema_is_an_average():
    """`self.ema = deepcopy(self.net)`, also inside of something; nobody counts its updates."""
    job = Job()
    job.wrapped.net_ema = nn.ModuleList([copy.deepcopy(job.net)])
    assert set(find(job)()) == {"linear.weight", "linear.bias", "offset"}


def test_copy_under_another_name_is_no_average():
    """A teacher or a second network is not taken for one; a name with `ema` inside a word neither."""
    job = Job()
    job.teacher, job.semantic = copy.deepcopy(job.net), copy.deepcopy(job.net)
    assert find(job) is None


def test_trainable_parameters_suffice():
    """LitEma and torch_ema leave frozen parameters out; the latter keeps no names but the order."""
    job = Job()
    job.net.linear.bias.requires_grad_(False)
    lit_ema(job)()
    assert set(find(job)()) == {"linear.weight"}
    assert set(find(job, ema=SimpleNamespace(shadow_params=[torch.zeros(2, 2)]))()) == {"linear.weight"}


def test_path_decides_between_two_alike():
    """An average of the whole job holds both networks; the names tell them apart."""
    job = Job()
    job.second = Net()
    job.average = AveragedModel(job)
    job.average.n_averaged += 1
    fill(job.average.module.second)
    assert is_five(find(job, "second")())
    assert not is_five(find(job)())


@pytest.mark.skipif(not hasattr(pl.callbacks, "EMAWeightAveraging"), reason="new in Lightning 2.6")
def test_lightning_weight_averaging_is_read_as_soon_as_it_is_set_up():
    """The callback has no average before the fit begins, and no update before the first step."""
    job, callback = Job(), pl.callbacks.EMAWeightAveraging()
    average = find(job, callbacks=[object(), callback])
    assert average() is None
    callback.setup(None, job, "fit")
    assert average() is None
    callback._average_model.update_parameters(job)
    fill(callback._average_model.module.net)
    assert is_five(average())


def test_several_averages_are_asked_about():
    """The message names them and the argument."""
    job = Job()
    lit_ema(job), averaged_model(job)
    with pytest.raises(ValueError, match=r"model_ema \(LitEma\).*average \(AveragedModel\).*ema='...'"):
        find(job)
    assert find(job, ema="average").source is job.average
    assert find(job, ema=job.model_ema).source is job.model_ema
    assert find(job, ema=False) is None


@pytest.mark.parametrize(
    ("ema", "message"),
    [
        (True, "averages found are none"),
        ("model_emma", "'model_emma'.*Job has no 'model_emma'"),
        ("net.linear", "Linear does not hold the weights of Net"),
        (3, "int does not hold the weights of Net"),
    ],
)
def test_average_that_does_not_fit_is_named(ema, message):
    """Raw weights are never used silently in place of what was asked for."""
    with pytest.raises(ValueError, match=message):
        find(Job(), ema=ema)
