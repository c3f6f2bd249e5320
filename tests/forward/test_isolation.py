"""What a check changes is put back, also when it fails."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from unimodal_monitor.forward.isolation import evaluating, leaving_no_trace, private_rng


def draw_everywhere() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


class Swapping(nn.Module):
    """Holds averaged weights while it evaluates, as EMA wrappers do that override `train`."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.raw, self.averaged = self.layer.weight.detach().clone(), torch.zeros(2, 2)

    def train(self, mode: bool = True) -> "Swapping":
        self.layer.weight.data = (self.raw if mode else self.averaged).clone()
        return super().train(mode)


def test_generators_go_on_as_if_nothing_had_been_drawn():
    """Python's, NumPy's and PyTorch's, also after an exception."""
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = [draw_everywhere(), draw_everywhere()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = draw_everywhere()
    with pytest.raises(RuntimeError, match="inside"), private_rng(7):
        draw_everywhere()
        raise RuntimeError("inside")
    assert [first, draw_everywhere()] == expected


def test_private_draws_depend_on_the_seed_alone_which_may_have_more_than_32_bits():
    draws = []
    for seed in (2**33 + 5, 2**33 + 5, 6):
        draw_everywhere()
        with private_rng(seed):
            draws.append(draw_everywhere())
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("training", [True, False])
def test_every_submodule_gets_its_own_train_or_eval_flag_back(training):
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    network.train(training)
    network[1][1].train(not training)
    flags = [module.training for module in network.modules()]
    with pytest.raises(RuntimeError, match="inside"), evaluating(network):
        assert not any(module.training for module in network.modules())
        raise RuntimeError("inside")
    assert [module.training for module in network.modules()] == flags


def test_a_wrapper_that_swaps_weights_in_train_swaps_back():
    network = Swapping()
    with evaluating(network):
        assert torch.equal(network.layer.weight, network.averaged)
    assert torch.equal(network.layer.weight, network.raw)
    assert network.training


def test_inside_no_gradients_are_recorded_and_hooks_added_after_compilation_fire():
    """A compiled module, which would ignore later hooks, is run eagerly."""
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    compiled = torch.compile(network, backend="eager")
    assert compiled(torch.ones(1, 2)).requires_grad
    calls = []
    with network[0].register_forward_hook(lambda *_: calls.append(1)), leaving_no_trace(network, seed=0):
        assert not compiled(torch.ones(1, 2)).requires_grad
    assert calls == [1]
    assert compiled(torch.ones(1, 2)).requires_grad
