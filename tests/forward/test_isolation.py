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
    """Python's, NumPy's and PyTorch's."""
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = [draw_everywhere(), draw_everywhere()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = draw_everywhere()
    with private_rng(7):
        draw_everywhere()
    assert [first, draw_everywhere()] == expected


def test_generators_are_restored_after_an_exception():
    """Whatever happens."""
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"), private_rng(7):
        draw_everywhere()
        raise RuntimeError("inside")
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])


def test_private_draws_depend_on_the_seed_alone():
    """The state outside does not reach inside, and a seed beyond 32 bits is none too many."""
    draws = []
    for seed in (2**33 + 5, 2**33 + 5, 6):
        draw_everywhere()
        with private_rng(seed):
            draws.append(draw_everywhere())
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("training", [True, False])
def test_every_submodule_gets_its_own_flag_back(training):
    """A part frozen in eval mode stays so, and a part in train mode inside a network in eval mode as well."""
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    network.train(training)
    network[1][1].train(not training)
    flags = [module.training for module in network.modules()]
    with pytest.raises(RuntimeError, match="inside"), evaluating(network):
        assert not any(module.training for module in network.modules())
        raise RuntimeError("inside")
    assert [module.training for module in network.modules()] == flags


def test_a_wrapper_that_swaps_weights_in_train_swaps_back():
    """`train(mode)` itself runs, not only the flags."""
    network = Swapping()
    with evaluating(network):
        assert torch.equal(network.layer.weight, network.averaged)
    assert torch.equal(network.layer.weight, network.raw)
    assert network.training


def test_no_gradients_are_recorded_and_gradient_mode_comes_back():
    """Inside no graph is built; afterwards gradients flow."""
    network = nn.Linear(2, 2)
    with leaving_no_trace(network, seed=0):
        assert not network(torch.ones(1, 2)).requires_grad
    assert network(torch.ones(1, 2)).requires_grad


def test_hooks_added_after_compilation_fire_inside():
    """A compiled module is run eagerly, since it would ignore later hooks."""
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    compiled = torch.compile(network, backend="eager")
    compiled(torch.ones(1, 2))
    calls = []
    handle = network[0].register_forward_hook(lambda *_: calls.append(1))
    with leaving_no_trace(network, seed=0):
        compiled(torch.ones(1, 2))
    handle.remove()
    assert calls == [1]
