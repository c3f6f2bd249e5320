"""Compiled networks and reduced precision: checks between training steps."""

from functools import partial

import pytest
import torch
from tiny_job import TinyDenoiser, blobs, tiny_probe_set
from torch._dynamo.testing import CompileCounter

from unimodal_monitor import EDMDenoiser, Monitor

LAYERS = ["blocks.0", "blocks.1"]


def tiny_monitor(network, **options):
    extra, layer = LAYERS
    return Monitor(EDMDenoiser(network), tiny_probe_set(), layer=layer, extra_layers=[extra], reporters=(), **options)


def train(model, steps=2):
    """Steps at a fixed batch, with gradients, as a training loop makes them."""
    images, _ = blobs(16, seed=3)
    for _ in range(steps):
        model(images, torch.ones(16)).square().mean().backward()


def compiled(*, in_place, counter):
    torch._dynamo.reset()
    torch.manual_seed(0)
    network = TinyDenoiser()
    del network.calls
    network.forward = partial(forward, network)
    if in_place:
        network.compile(backend=counter)
        return network, network
    return network, torch.compile(network, backend=counter)


def forward(network, noised, sigma):
    hidden = noised / (1 + sigma.view(-1, 1) ** 2).sqrt()
    for block in network.blocks:
        hidden = hidden + block(hidden)
    return hidden


@pytest.mark.slow
@pytest.mark.parametrize("in_place", [False, True], ids=["wrapped", "in place"])
def test_a_compiled_network_fires_its_hooks_and_is_not_compiled_again(in_place):
    """At every check, before and after training steps; the check itself runs eagerly and compiles nothing."""
    counter = CompileCounter()
    network, model = compiled(in_place=in_place, counter=counter)
    monitor = tiny_monitor(model)
    monitor.check(0)
    assert counter.frame_count == 0
    train(model)
    frames = counter.frame_count
    assert frames > 0
    for step in (10, 20):
        check = monitor.check(step)
        assert [curve.layer for curve in check.curves] == LAYERS
        train(model)
    assert counter.frame_count == frames
    eager = tiny_monitor(network)
    network._compiled_call_impl = None
    assert eager.check(30).curve.score.mean == pytest.approx(monitor.check(30).curve.score.mean, abs=1e-6)


def test_a_check_runs_in_the_trainers_precision():
    """Under bf16 autocast the layers compute in bf16, features are float32, and the curve is near that of float32."""
    torch.manual_seed(0)
    network, seen = TinyDenoiser(), set()
    network.blocks[0][0].register_forward_hook(lambda module, args, output: seen.add(output.dtype))
    exact = tiny_monitor(network).check(0)
    assert seen == {torch.float32}
    seen.clear()
    rounded = tiny_monitor(network, precision=partial(torch.autocast, "cpu", torch.bfloat16)).check(1)
    assert seen == {torch.bfloat16}
    assert rounded.curve.score.mean == pytest.approx(exact.curve.score.mean, abs=0.02)
    assert not torch.is_autocast_enabled("cpu")
