"""What a check changes and puts back: random states, train/eval flags, compilation, gradients."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def private_rng(seed: int) -> Iterator[None]:
    """Seed every global generator for the block and restore it afterwards, whatever happens.

    The monitor's own noise needs none of them: this guards against a network or a dataset that draws.
    """
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if cuda else []
    mps_state = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed_all(seed)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda_states)
        if mps_state is not None:
            torch.mps.set_rng_state(mps_state)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Switch to eval mode; afterwards every submodule has its own flag again.

    `train(mode)` of the network runs before the flags are set one by one: some wrappers swap weights in it.
    """
    was_training = network.training
    flags = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        yield
    finally:
        network.train(was_training)
        for module, flag in flags:
            module.training = flag


@contextmanager
def leaving_no_trace(network: nn.Module, *, seed: int) -> Iterator[None]:
    """All that a check needs around its forwards: eval mode, no gradients, eager execution, private randomness.

    Eager, because a compiled module ignores hooks that came after its first compilation (pytorch #117758).
    """
    with private_rng(seed), evaluating(network), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        yield
