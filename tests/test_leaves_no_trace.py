"""Training with the monitor is, bit for bit, training without it."""

import random

import numpy as np
import pytest
import torch
from tiny_job import TinyJob, tiny_loader, tiny_probe_set, tiny_trainer

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
