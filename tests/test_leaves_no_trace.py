"""Training with the monitor is, bit for bit, training without it."""

import random
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from tiny_job import WIDTH, TinyDenoiser, TinyJob, blobs, tiny_loader, tiny_probe_set, tiny_trainer
from torch.utils.data import DataLoader, TensorDataset

from unimodal_monitor import EDMDenoiser, LogisticProbe, Monitor, RidgeProbe, UnimodalMonitor


def train(folder, callbacks, **options):
    """The job after 50 steps from fixed seeds, and the random states it left."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    job = TinyJob()
    tiny_trainer(folder, callbacks=callbacks, **options).fit(job, tiny_loader())
    return job, (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


@pytest.mark.parametrize(
    ("options", "monitor_options"),
    [
        ({}, {}),
        ({}, {"ema": False, "probe": LogisticProbe()}),
        ({"precision": "bf16-mixed"}, {}),
        ({"accumulate_grad_batches": 2, "max_steps": 25}, {"probe": RidgeProbe(0.01)}),
        ({"gradient_clip_val": 0.5, "deterministic": True}, {}),
    ],
)
def test_losses_weights_and_random_states_are_equal_bit_for_bit(tmp_path, options, monitor_options):
    """Dropout, batch norm and EMA are on; the checks change nothing."""
    monitor = UnimodalMonitor(tiny_probe_set(), every_n_train_steps=12, **monitor_options)
    with_it, states_with = train(tmp_path / "with", [monitor], **options)
    without, states_without = train(tmp_path / "without", [], **options)
    assert len(monitor.history) >= 2
    assert with_it.losses == without.losses
    assert len(with_it.losses) >= 50
    assert states_with == states_without
    for name, tensor in without.state_dict().items():
        assert torch.equal(tensor, with_it.state_dict()[name]), name


class Network(TinyDenoiser):
    """Without a name that tells."""

    def forward(self, x, t):
        return super().forward(x, t)


class Own(pl.LightningModule):
    """A network and a flow of its own, of which nothing tells but the training steps; with dropout and batch norm."""

    def __init__(self, wrap=None):
        super().__init__()
        self.net, self.losses = Network(), []
        if wrap == "in place":
            self.net.compile(backend="eager")
        elif wrap == "around":
            self.net = torch.compile(self.net, backend="eager")

    def forward(self, batch, batch_idx=0):
        images, _ = batch
        noise, t = torch.randn_like(images), torch.rand(len(images))
        s = t[:, None]
        return (self.net((1 - s) * images + s * noise, t) - noise + images).square().mean()

    def training_step(self, batch, batch_idx):
        loss = self(batch)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)

    def train_dataloader(self):
        return DataLoader(TensorDataset(*blobs(96, seed=1)), batch_size=16, shuffle=True)

    def val_dataloader(self):
        return DataLoader(TensorDataset(*blobs(300, seed=2)), batch_size=64)

    def validation_step(self, batch, batch_idx):
        self.log("val", self(batch))


class TwoOptimizers(Own):
    """Manual optimization, as of a GAN."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization, self.other = False, torch.nn.Linear(WIDTH, 1)

    def training_step(self, batch, batch_idx):
        for optimizer, loss in zip(self.optimizers(), (super().training_step(batch, batch_idx), None), strict=True):
            loss = self.other(batch[0]).square().mean() if loss is None else loss
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.AdamW(part.parameters(), lr=1e-2) for part in (self.net, self.other)]


@pytest.mark.parametrize(
    ("make", "options", "found"),
    [
        (Own, {}, True),
        (Own, {"accumulate_grad_batches": 3, "max_steps": 17}, True),
        pytest.param(Own, {"precision": "bf16-mixed"}, True, marks=pytest.mark.slow),
        pytest.param(TwoOptimizers, {}, True, marks=pytest.mark.slow),
        pytest.param(partial(Own, "around"), {}, False, marks=pytest.mark.slow),
        pytest.param(partial(Own, "in place"), {}, False, marks=pytest.mark.slow),
    ],
    ids=["plain", "accumulation", "bf16", "two optimizers", "compiled", "compiled in place"],
)
def test_search_for_network_and_schedule_leaves_no_trace(make, options, found, tmp_path):
    """Without an argument; a compiled network is asked for, since it would keep the hooks."""

    def run(folder, callbacks):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        job = make()
        trainer = tiny_trainer(folder, callbacks=callbacks, **{"num_sanity_val_steps": 1, **options})
        trainer.fit(job)
        return job, (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())

    monitor = UnimodalMonitor(every_n_train_steps=12)
    if not found:
        with pytest.raises(ValueError, match="^unimodal_monitor: net: the diffusion networks found in Own are none"):
            run(tmp_path / "with", [monitor])
        monitor = UnimodalMonitor(every_n_train_steps=12, net="net", schedule="flow")
    with_it, states_with = run(tmp_path / "with", [monitor])
    without, states_without = run(tmp_path / "without", [])
    assert len(monitor.history) >= 2
    assert monitor.state_dict()["settled"] == ("flow" if found else None)  # a resumed run need not look again
    assert with_it.losses == without.losses
    assert states_with == states_without
    for name, tensor in without.state_dict().items():
        assert torch.equal(tensor, with_it.state_dict()[name]), name
    assert not any(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in with_it.modules())


TWO_RANKS = """
import sys; sys.path.insert(0, sys.argv[1])
import torch
from test_leaves_no_trace import Own
from tiny_job import tiny_trainer
from unimodal_monitor import UnimodalMonitor
torch.set_num_threads(1)
torch.manual_seed(0)
monitors = [UnimodalMonitor(every_n_train_steps=5)] if sys.argv[3] == "with" else []
job = Own()
trainer = tiny_trainer(sys.argv[2], callbacks=monitors, max_steps=14, devices=2, strategy="ddp")
trainer.fit(job)
assert all(len(monitor.history) == 2 for monitor in monitors)
tensors = [tensor.tolist() for tensor in job.state_dict().values()]
open(f"{sys.argv[2]}/{sys.argv[3]}_{trainer.global_rank}", "w").write(repr((job.losses, tensors)))
"""


@pytest.mark.slow
def test_search_on_two_ranks_leaves_no_trace(tmp_path):
    """DDP over gloo: losses and weights of both ranks, with and without the monitor."""
    (tmp_path / "job.py").write_text(TWO_RANKS)
    for kind in ("with", "without"):
        command = [sys.executable, str(tmp_path / "job.py"), str(Path(__file__).parent), str(tmp_path), kind]
        subprocess.run(command, check=True, timeout=300, cwd=tmp_path)
    for rank in (0, 1):
        assert (tmp_path / f"with_{rank}").read_text() == (tmp_path / f"without_{rank}").read_text()


def test_this_test_can_fail(tmp_path):
    """A callback that draws one random number does change the losses."""

    class Draws(UnimodalMonitor):
        def on_train_batch_end(self, *args):
            torch.rand(1)

    with_it, _ = train(tmp_path / "with", [Draws(tiny_probe_set(), every_n_train_steps=3)])
    without, _ = train(tmp_path / "without", [])
    assert with_it.losses != without.losses


def test_a_check_that_fails_leaves_no_trace_either(tmp_path):
    """Hooks, modes, gradients and random states are put back when the probe raises in the middle."""

    class Broken(RidgeProbe):
        def fit(self, collected):
            torch.rand(3)
            raise RuntimeError("broken probe")

    monitor = UnimodalMonitor(tiny_probe_set(), every_n_train_steps=5, probe=Broken())
    with pytest.warns(UserWarning, match="broken probe"):
        with_it, states_with = train(tmp_path / "with", [monitor])
    without, states_without = train(tmp_path / "without", [])
    assert with_it.losses == without.losses
    assert states_with == states_without
    assert all(module.training for module in with_it.net.modules())


def test_gradients_of_an_accumulation_are_left_alone(tmp_path):
    """The check runs between two micro-batches without touching `.grad`."""
    job = TinyJob()
    images, _ = next(iter(tiny_loader()))
    job.net(images, torch.ones(len(images))).square().mean().backward()
    before = {name: (parameter.grad, parameter.grad.clone()) for name, parameter in job.net.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in job.net.named_buffers()}
    Monitor(EDMDenoiser(job.net), tiny_probe_set(), layer="blocks.1", reporters=()).check(0)
    for name, parameter in job.net.named_parameters():
        assert parameter.grad is before[name][0]
        assert torch.equal(parameter.grad, before[name][1])
    for name, buffer in job.net.named_buffers():
        assert torch.equal(buffer, buffers[name])
