"""Averaged weights are read from wherever a job keeps them, and nothing is swapped."""

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from diffusers_jobs import Job, diffusers
from torch import nn
from torch.optim.swa_utils import AveragedModel

from unimodal_monitor.denoisers import EDMDenoiser
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
        trainable = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        self.m_name2s_name = {name: name.replace(".", "") for name in trainable}
        self.register_buffer("num_updates", torch.tensor(0))
        for name, tensor in trainable.items():
            self.register_buffer(self.m_name2s_name[name], tensor)


def make_job():
    return Job(net=Net(), wrapped=nn.Module())


def find(job, path="net", **kwargs):
    return find_average(job, job.get_submodule(path), path=path, **kwargs)


def fill(tensors):
    for tensor in tensors:
        tensor.data.fill_(5.0)


def is_five(tensors):
    return all((tensors[name] == 5).all() for name in ("linear.weight", "linear.bias"))


def lit_ema(job, model=None):
    """Add an average to the job, and return what updates it to fives."""
    job.model_ema = LitEma(model or job.net)
    return lambda: fill(job.model_ema.buffers())


def lit_ema_of_a_wrapper(job):
    job.wrapped.diffusion_model = job.net
    return lit_ema(job, job.wrapped)


def averaged_model(job, wrap=lambda net: net):
    job.average = AveragedModel(wrap(job.net))
    return lambda: fill([*job.average.parameters(), job.average.n_averaged])


def diffusers_ema(job):
    job.ema = diffusers.training_utils.EMAModel(job.net.parameters())
    return lambda: (job.ema.step(job.net.parameters()), fill(job.ema.shadow_params))


def averaged_compiled_model(job):
    return averaged_model(job, partial(torch.compile, backend="eager"))


SOURCES = [lit_ema, lit_ema_of_a_wrapper, averaged_model, averaged_compiled_model, diffusers_ema]


@pytest.mark.parametrize("keep", SOURCES)
def test_average_is_none_until_its_first_update_and_reaches_the_forward_afterwards(keep):
    """A copy of the initial weights is no average. The job's own weights stay as they are."""
    job = make_job()
    update = keep(job)
    denoiser, raw, filled = EDMDenoiser(job.net, weights=find(job)), copy.deepcopy(job.net), copy.deepcopy(job.net)
    fill(filled.parameters())
    inputs = torch.randn(3, 2), torch.zeros(3)
    assert denoiser.weights_used == "raw"
    torch.testing.assert_close(denoiser(*inputs), raw(*inputs))
    update()
    assert denoiser.weights_used == "ema"
    torch.testing.assert_close(denoiser(*inputs), filled(*inputs))
    torch.testing.assert_close(job.net.state_dict(), raw.state_dict(), rtol=0, atol=0)


def test_compiled_blocks_change_no_name():
    """torch.compile's wrappers may come between, in the network, in its average or in both."""
    job = make_job()
    lit_ema(job)()
    job.net.linear = torch.compile(job.net.linear, backend="eager")
    assert (find(job)()["linear._orig_mod.weight"] == 5).all()


def test_copy_under_a_name_like_ema_is_an_average_and_another_copy_is_not():
    """`self.ema = deepcopy(self.net)`, also inside of something, but no teacher and no `ema` inside a word."""
    job = make_job()
    job.teacher, job.semantic = copy.deepcopy(job.net), copy.deepcopy(job.net)
    assert find(job) is None
    job.wrapped.net_ema = nn.ModuleList([copy.deepcopy(job.net)])
    assert set(find(job)()) == {"linear.weight", "linear.bias", "offset"}


def test_trainable_parameters_suffice():
    """LitEma and torch_ema leave frozen parameters out; the latter keeps no names but the order."""
    job = make_job()
    job.net.linear.bias.requires_grad_(False)
    lit_ema(job)()
    assert set(find(job)()) == {"linear.weight"}
    assert set(find(job, ema=SimpleNamespace(shadow_params=[torch.zeros(2, 2)]))()) == {"linear.weight"}


def test_path_decides_between_two_alike():
    """An average of the whole job holds both networks; the names tell them apart."""
    job = make_job()
    job.second = Net()
    job.average = AveragedModel(job)
    job.average.n_averaged += 1
    fill(job.average.module.second.parameters())
    assert is_five(find(job, "second")())
    assert not is_five(find(job)())


@pytest.mark.skipif(not hasattr(pl.callbacks, "EMAWeightAveraging"), reason="new in Lightning 2.6")
def test_lightning_weight_averaging_is_read_as_soon_as_it_is_set_up():
    """The callback has no average before the fit begins, and no update before the first step."""
    job, callback = make_job(), pl.callbacks.EMAWeightAveraging()
    average = find(job, callbacks=[object(), callback])
    assert average() is None
    callback.setup(None, job, "fit")
    assert average() is None
    callback._average_model.update_parameters(job)
    fill(callback._average_model.module.net.parameters())
    assert is_five(average())


def test_several_averages_are_asked_about():
    """The message names them and the argument, which takes a name, an object or False."""
    job = make_job()
    lit_ema(job)(), averaged_model(job)
    with pytest.raises(ValueError, match=r"^ema: .*model_ema \(LitEma\).*average \(AveragedModel\).*ema='...'"):
        find(job)
    for ema in ("model_ema", job.model_ema):
        assert is_five(find(job, ema=ema)())
    assert find(job, ema="average")() is None
    assert find(job, ema=False) is None


@pytest.mark.parametrize(
    ("ema", "message"),
    [
        (True, "^ema: the averages found are none"),
        ("model_emma", "^ema='model_emma'.*Job has no 'model_emma'"),
        ("net.linear", "^ema: Linear does not hold the weights of Net"),
        (3, "^ema: int does not hold the weights of Net"),
    ],
)
def test_average_that_does_not_fit_is_named(ema, message):
    """Raw weights are never used silently in place of what was asked for."""
    with pytest.raises(ValueError, match=message):
        find(make_job(), ema=ema)
