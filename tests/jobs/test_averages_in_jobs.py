"""Averaged weights wherever a job keeps them: read while it trains, and equal to the job's own estimate by them.

None may be left out in silence: what is not read stands in the line, and the raw weights are then what is measured.
"""

import copy

import pytest
import pytorch_lightning as pl
import torch
from families import Net, linear, of_velocity, path, velocity
from test_families import images
from torch.utils.data import DataLoader, TensorDataset

from unimodal_monitor import ProbeSet, UnimodalMonitor

FLOW = path(linear, velocity, of_velocity, time_of=lambda sigma: sigma / (1 + sigma))

pytestmark = pytest.mark.slow


def tensors_of(net):
    return [parameter.detach().clone() for parameter in net.parameters()]


def named_tensors_of(module):
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def update(average, net, weight=0.2):
    """An exponential moving average by its definition."""
    for tensor, parameter in zip(average, net.parameters(), strict=True):
        tensor.lerp_(parameter.detach(), weight)


class Plain:
    """A training loop, a state or the like: an object of no library."""


class PowerFunctionEMA:
    """EDM2's: one average for each width."""

    def __init__(self, net):
        self.net, self.stds = net, [0.05, 0.1]
        self.emas = [copy.deepcopy(net) for _ in self.stds]

    def update(self):
        for index, average in enumerate(self.emas):
            update(average.parameters(), self.net, 0.2 / (1 + index))


class AveragingJob(pl.LightningModule):
    """A flow; `make(job)` puts the average in place, `step(job)` updates it after each optimizer's step."""

    def __init__(self, make=None, step=None):
        super().__init__()
        self.net, self.step_average = Net(), step
        if make is not None:
            make(self)

    def training_step(self, batch, batch_idx):
        return FLOW["error"](self, batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.net.parameters(), 1e-2)

    @torch.no_grad()
    def on_train_batch_end(self, *args):
        if self.step_average is not None:
            self.step_average(self)


def fit(job, folder, *callbacks, **arguments):
    """The denoiser at the end."""
    torch.manual_seed(0)
    probe_set, denoisers = ProbeSet.from_datasets(images(40, seed=1), images(60, seed=2)), []
    monitor = UnimodalMonitor(probe_set, every_n_train_steps=100, net="net", schedule="flow", **arguments)

    class Keep(pl.Callback):
        def on_train_batch_end(self, *args):
            denoisers.append(monitor.monitor.denoiser)

    trainer = pl.Trainer(
        accelerator="cpu", max_steps=6, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=[*callbacks, monitor, Keep()],
    )  # fmt: skip
    trainer.fit(job, DataLoader(TensorDataset(*images(40, seed=1)), batch_size=8))
    return denoisers[-1]


@torch.no_grad()
def error(denoiser, tensors):
    """Largest difference from the family's own estimate by these weights, as a fraction of the correction."""
    own = Plain()
    own.net = Net()
    for parameter, tensor in zip(own.net.parameters(), tensors, strict=True):
        parameter.copy_(tensor)
    sigma = torch.tensor([0.05, 0.3, 1.0, 3.0])
    noised = images(4, seed=3)[0] + sigma.view(-1, 1, 1, 1) * torch.randn(4, 3, 8, 8)
    expected = FLOW["estimate"](own, noised, sigma)
    differences = (denoiser(noised, sigma) - expected).flatten(1).norm(dim=1)
    return float((differences / (expected - noised).flatten(1).norm(dim=1)).max())


def guided_diffusion(job):
    job.ema_rate, job.ema_params = [0.9, 0.99], [tensors_of(job.net), tensors_of(job.net)]


def training_loop(job):
    job.loop = Plain()
    job.loop.ema_params = [tensors_of(job.net)]


def power_function(job):
    job.averager = PowerFunctionEMA(job.net)


def by_name(job):
    job.ema = named_tensors_of(job.net)


def anew(job):
    job.ema = {name: 0.8 * job.ema[name] + 0.2 * tensor for name, tensor in named_tensors_of(job.net).items()}


def of_the_job(job):
    job.ema = named_tensors_of(job)


def in_a_dict(job):
    job.state = {"ema": named_tensors_of(job.net), "step": 0}


KEPT = {
    "guided-diffusion, ema_params": (
        guided_diffusion,
        lambda job: update(job.ema_params[0], job.net),
        lambda job: job.ema_params[0],
    ),
    "guided-diffusion, a training loop in the module": (
        training_loop,
        lambda job: update(job.loop.ema_params[0], job.net),
        lambda job: job.loop.ema_params[0],
    ),
    "EDM2, PowerFunctionEMA": (
        power_function,
        lambda job: job.averager.update(),
        lambda job: job.averager.emas[0].parameters(),
    ),
    "dict": (by_name, lambda job: update(job.ema.values(), job.net), lambda job: job.ema.values()),
    "dict made anew at each update": (by_name, anew, lambda job: job.ema.values()),
    "dict with the names of the job": (
        of_the_job,
        lambda job: update(job.ema.values(), job.net),
        lambda job: job.ema.values(),
    ),
    "score_sde, a dict in a dict": (
        in_a_dict,
        lambda job: update(job.state["ema"].values(), job.net),
        lambda job: job.state["ema"].values(),
    ),
}


@pytest.mark.parametrize("kept", KEPT)
def test_average_that_the_job_keeps_is_read(kept, tmp_path, capsys):
    make, step, tensors = KEPT[kept]
    job = AveragingJob(make, step)
    denoiser = fit(job, tmp_path)
    assert "confirmed on 3 training steps" in capsys.readouterr().out
    assert denoiser.weights_used == "ema"
    assert error(denoiser, tensors(job)) < 1e-4
    assert error(denoiser, job.net.parameters()) > 1e-2


class Averaging(pl.Callback):
    """A user's own callback, which keeps its average in one of the usual ways."""

    def __init__(self, make, read):
        self.make, self.read = make, read

    def on_fit_start(self, trainer, module):
        self.make(self, module)

    @torch.no_grad()
    def on_train_batch_end(self, trainer, module, *args):
        update(self.read(self), module.net)


def set_plain(callback, module):
    callback.helper = Plain()
    callback.helper.shadow = {name: tensor.detach().clone() for name, tensor in module.named_parameters()}


IN_CALLBACKS = {
    "a copy": (lambda c, job: setattr(c, "ema_model", copy.deepcopy(job.net)), lambda c: c.ema_model.parameters()),
    "a list": (lambda c, job: setattr(c, "ema", tensors_of(job.net)), lambda c: c.ema),
    "a state dict": (lambda c, job: setattr(c, "ema_state", named_tensors_of(job.net)), lambda c: c.ema_state.values()),
    "the job's state dict": (lambda c, job: setattr(c, "shadow", named_tensors_of(job)), lambda c: c.shadow.values()),
    "an object of its own": (set_plain, lambda c: c.helper.shadow.values()),
}


@pytest.mark.parametrize("kept", IN_CALLBACKS)
def test_average_that_a_callback_keeps_is_read(kept, tmp_path, capsys):
    job, callback = AveragingJob(), Averaging(*IN_CALLBACKS[kept])
    denoiser = fit(job, tmp_path, callback)
    assert "weights ema (callback Averaging." in capsys.readouterr().out
    assert error(denoiser, callback.read(callback)) < 1e-4
    assert error(denoiser, job.net.parameters()) > 1e-2


def late(job):
    if not hasattr(job, "late_ema"):
        job.late_ema = named_tensors_of(job.net)
    update(job.late_ema.values(), job.net)


def test_average_that_begins_after_the_start_is_named(tmp_path, capsys):
    """The raw weights are read, and the line says what is not."""
    job = AveragingJob(step=late)
    denoiser = fit(job, tmp_path)
    assert capsys.readouterr().out.rstrip().endswith("not read: late_ema")
    assert denoiser.weights_used == "raw"
    assert error(denoiser, job.net.parameters()) < 1e-4


def test_teacher_in_a_dict_is_named(tmp_path, capsys):
    job = AveragingJob(lambda job: setattr(job, "frozen", {"teacher": copy.deepcopy(job.net)}))
    fit(job, tmp_path)
    assert "not read: frozen.teacher" in capsys.readouterr().out


def test_average_in_a_dict_is_given_by_its_name(tmp_path):
    job = AveragingJob(in_a_dict, lambda job: update(job.state["ema"].values(), job.net))
    assert error(fit(job, tmp_path, ema="state.ema"), job.state["ema"].values()) < 1e-4
    with pytest.raises(ValueError, match="ema='state.emma': .* has no 'emma'"):
        fit(AveragingJob(in_a_dict), tmp_path, ema="state.emma")


def test_stochastic_weight_averaging_is_raw_before_its_epoch_and_read_from_it_on(tmp_path):
    callback = pl.callbacks.StochasticWeightAveraging(swa_lrs=1e-3, swa_epoch_start=50)
    job = AveragingJob()
    denoiser = fit(job, tmp_path, callback)
    assert denoiser.weights_used == "raw"
    assert error(denoiser, job.net.parameters()) < 1e-4

    callback = pl.callbacks.StochasticWeightAveraging(swa_lrs=1e-3, swa_epoch_start=1)
    job, kept = AveragingJob(), {}

    class Compare(pl.Callback):  # before the end of the training, where the callback gives its average to the network
        def on_train_batch_end(self, trainer, module, *args):
            if trainer.global_step == 6:
                kept["average"] = tensors_of(callback._average_model.net)
                kept["raw"] = tensors_of(module.net)

    denoiser = fit(job, tmp_path, callback, Compare())  # the second epoch begins with the sixth step
    assert denoiser.weights_used == "ema"
    assert error(denoiser, kept["average"]) < 1e-4
    assert error(denoiser, kept["raw"]) > 1e-3
