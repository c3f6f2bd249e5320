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
from unimodal_monitor.detect.ema import find_average, unread_averages


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


class EMA(nn.Module):
    """The interface of ema_pytorch, which keeps the trained network beside its average."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.online_model, self.ema_model = model, copy.deepcopy(model)
        self.register_buffer("initted", torch.tensor(False))
        self.register_buffer("step", torch.tensor(0))


class Mine(pl.Callback):
    """A user's own callback."""


def make_job():
    return Job(net=Net(), wrapped=nn.Module())


def find(job, path="net", **kwargs):
    return find_average(job, job.get_submodule(path), path=path, **kwargs)


def fill(tensors, value=5.0):
    for tensor in tensors:
        tensor.data.fill_(value)


def is_five(tensors):
    return all((tensors[name] == 5).all() for name in ("linear.weight", "linear.bias"))


def tensors_by_name(net, prefix="net."):
    return {prefix + name: parameter.detach().clone() for name, parameter in net.named_parameters()}


def tensors_in_order(net):
    return [parameter.detach().clone() for parameter in net.parameters()]


def lit_ema(job):
    """Give the job an average of fives."""
    job.model_ema = LitEma(job.net)
    fill(job.model_ema.buffers())


def copies(net):
    return [copy.deepcopy(net), copy.deepcopy(net)]


def fill_counted(average):
    fill([*average.parameters(), average.n_averaged])


BY_CLASS = {  # class: (how the average is made of a network, its first update, to fives)
    "LDM": (LitEma, lambda ema: fill(ema.buffers())),
    "LDM of a job": (lambda net: LitEma(Job(net=net)), lambda ema: fill(ema.buffers())),
    "torch": (AveragedModel, fill_counted),
    "torch, compiled": (lambda net: AveragedModel(torch.compile(net, backend="eager")), fill_counted),
    "ema_pytorch": (EMA, lambda ema: fill([*ema.ema_model.parameters(), ema.initted])),
    "diffusers": (
        lambda net: diffusers.training_utils.EMAModel(net.parameters()),
        lambda ema: (ema.step(ema.shadow_params), fill(ema.shadow_params)),
    ),
    "EDM2": (
        lambda net: SimpleNamespace(net=net, stds=[0.05, 0.1], emas=copies(net)),
        lambda ema: fill(ema.emas[0].parameters()),
    ),
}
BY_NAME = {  # name of the attribute, of whatever class: likewise
    "ema": (copy.deepcopy, lambda ema: fill(ema.parameters())),
    "_ema": (lambda net: [copy.deepcopy(net)], lambda ema: fill(ema[0].parameters())),
    "ema_job": (lambda net: Job(net=copy.deepcopy(net)), lambda ema: fill(ema.parameters())),
    "ema_state": (tensors_by_name, lambda ema: fill(ema.values())),
    "shadow": (partial(tensors_by_name, prefix=""), lambda ema: fill(ema.values())),
    "ema_weights": (tensors_in_order, fill),
    "ema_params": (lambda net: [tensors_in_order(net), tensors_in_order(net)], lambda ema: fill(ema[0])),
    "net_ema": (
        lambda net: SimpleNamespace(model=net, shadow=tensors_by_name(net), backup={}),
        lambda ema: fill(ema.shadow.values()),
    ),
}


@pytest.mark.parametrize("in_callback", [False, True])
@pytest.mark.parametrize("kind", [*BY_CLASS, *BY_NAME])
def test_average_of_a_job_or_of_a_callback_reaches_the_forward_once_it_is_updated(kind, in_callback):
    """An initial copy is none: its counter says so, or it stays as it is while the raw weights move."""
    make, update = (BY_CLASS | BY_NAME)[kind]
    job, callback, name = make_job(), Mine(), kind if kind in BY_NAME else "kept"
    kept = make(job.net)
    setattr(callback if in_callback else job, name, kept)
    average = find(job, callbacks=[object(), callback])
    denoiser, inputs = EDMDenoiser(job.net, weights=average), (torch.randn(3, 2), torch.zeros(3))
    assert (average.name, average.source) == (f"callback Mine.{name}" if in_callback else name, kept)
    torch.testing.assert_close(denoiser(*inputs), job.net(*inputs))
    assert (denoiser.weights_used == "raw") == (kind in BY_CLASS and kind != "EDM2")
    fill(job.net.parameters(), 1.0)
    raw, filled = copies(job.net)
    fill(filled.parameters())
    assert denoiser.weights_used == "raw"
    update(kept)
    for _ in range(2):  # the average that has moved once may rest
        assert denoiser.weights_used == "ema"
        torch.testing.assert_close(denoiser(*inputs), filled(*inputs))
        torch.testing.assert_close(job.net.state_dict(), raw.state_dict(), rtol=0, atol=0)
        fill([*job.net.parameters(), *raw.parameters()], 2.0)


def test_average_that_is_set_anew_at_each_update_is_followed():
    job = make_job()
    job.ema_state = tensors_by_name(job.net)
    average = find(job, ema=job.ema_state)
    job.ema_state = {name: torch.full_like(tensor, 5) for name, tensor in job.ema_state.items()}
    assert is_five(average())


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("state", tensors_by_name),
        ("grad_ema", tensors_by_name),
        ("ema_losses", lambda net: [torch.zeros(()), torch.zeros(())]),
        ("ema_decay", lambda net: 0.999),
        ("ema_state", lambda net: net.state_dict()),
        ("ema_params", lambda net: [list(net.parameters())]),
    ],
)
def test_what_is_no_average_of_the_weights_is_not_taken(name, make):
    """Other names, averages of something else, and references to the raw weights."""
    job = make_job()
    setattr(job, name, make(job.net))
    assert find(job) is None


def test_compiled_blocks_change_no_name():
    """torch.compile's wrappers may come between, in the network, in its average or in both."""
    job = make_job()
    lit_ema(job)
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
    lit_ema(job)
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


def test_stochastic_weight_averaging_is_raw_before_its_first_epoch():
    """The callback keeps a copy of the initial weights from its setup on, and its count beside it."""
    job, callback = make_job(), pl.callbacks.StochasticWeightAveraging(swa_lrs=0.1)
    average = find(job, callbacks=[callback])
    callback._average_model = copy.deepcopy(job)
    fill(callback._average_model.net.parameters())
    for count in (None, torch.tensor(0)):
        callback.n_averaged = count
        assert average() is None
    callback.n_averaged += 1
    for value in (1.0, 2.0):  # within an epoch only the raw weights move
        fill(job.net.parameters(), value)
        assert is_five(average())


def test_unread_averages_targets_and_teachers_are_named():
    """Whatever shares no weights with what is read, but no loss, no batch, and not the network by another name."""
    job, callback = make_job(), Mine()
    job.model_ema, job.teacher, job.semantic = LitEma(job.net), nn.Linear(3, 3), copy.deepcopy(job.net)
    job.ema_losses, job.target, job.target_images = [torch.zeros(())], job.net, [torch.zeros(4, 3)]
    callback.swa, callback.ema_params = AveragedModel(job.net), [tensors_in_order(job.net)]
    swa = pl.callbacks.StochasticWeightAveraging(swa_lrs=0.1)
    swa._average_model = copy.deepcopy(job)
    expected = ["teacher", "model_ema", "callback Mine.swa", "callback Mine.ema_params"]
    expected.append("callback StochasticWeightAveraging")
    for used in (None, job.model_ema, callback.ema_params, swa):
        names = unread_averages(job, job.net, callbacks=[callback, swa], used=used)
        read = {id(None): "", id(job.model_ema): "model_ema", id(swa): expected[-1]}.get(id(used), expected[-2])
        assert sorted(names) == sorted(set(expected) - {read})


def test_several_averages_are_asked_about():
    """The message names them and the argument, which takes a name, an object or False."""
    job = make_job()
    lit_ema(job)
    job.average = AveragedModel(job.net)
    with pytest.raises(ValueError, match=r"^ema: .*model_ema \(LitEma\).*average \(AveragedModel\).*ema='...'"):
        find(job)
    for ema in ("model_ema", job.model_ema):
        assert is_five(find(job, ema=ema)())
    assert find(job, ema="average")() is None
    callbacks = [Mine(), Mine()]
    callbacks[1].ema = tensors_in_order(job.net)
    fill(callbacks[1].ema)
    with pytest.raises(ValueError, match="callback Mine 2.ema"):
        find(job, callbacks=callbacks)
    for ema in ("callback Mine 2.ema", callbacks[1].ema):
        assert is_five(find(job, ema=ema, callbacks=callbacks)())
    assert find(job, ema=False) is None


@pytest.mark.parametrize(
    ("ema", "message"),
    [
        (True, "^ema: the averages found are none"),
        ("model_emma", "^ema='model_emma'.*Job has no 'model_emma'"),
        ("callback Mine.ema", "^ema='callback Mine.ema'.*has no 'ema'"),
        ("net.linear", "^ema: Linear does not hold the weights of Net"),
        (3, "^ema: int does not hold the weights of Net"),
    ],
)
def test_average_that_does_not_fit_is_named(ema, message):
    """Raw weights are never used silently in place of what was asked for."""
    with pytest.raises(ValueError, match=message):
        find(make_job(), ema=ema, callbacks=[Mine()])
