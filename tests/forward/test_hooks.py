"""Hooks, pooling and the early exit."""

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unimodal_monitor.forward.hooks import capture, mean_pool, spread

INPUT = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


class Stack(nn.Module):
    """Six blocks; counts the calls of each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(6))
        self.unused = nn.Identity()
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            self.calls.append(number)
            x = block(x)
        return self.stem(x)


class Catching(Stack):
    """Catches whatever its blocks raise, and goes on without them."""

    def forward(self, x: Tensor) -> Tensor:
        try:
            return super().forward(x)
        except Exception:
            return x


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((2, 3, 4, 5), (2, 3)), ((2, 3, 7, 4, 5), (2, 3, 4)), ((2, 6, 3), 1), ((2, 4), ()), ((2, 1), ())],
)
def test_features_are_means_over_space_or_tokens_and_the_spread_is_that_of_all_that_a_layer_puts_out(shape, axes):
    """(N, C, H, W), with the time of a video as another axis; (N, tokens, D); (N, D) is already a feature."""
    output = torch.randn(shape)
    np.testing.assert_allclose(mean_pool(output), output.numpy().mean(axes), atol=1e-6)
    np.testing.assert_allclose(spread(output), [np.std(image) for image in output.numpy()], rtol=1e-5)
    assert torch.equal(spread((output, None)), spread(output))


def test_of_a_map_and_its_skips_the_map_is_taken_and_of_text_and_image_tokens_the_image():
    """As blocks of diffusers, SD3 and Flux put out; the last one of SD3 has no text any more."""
    output, image = torch.randn(2, 3, 4, 4), torch.randn(2, 6, 3)
    for skips in ((torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)), None, torch.randn(2, 3, 4, 4)):
        assert torch.equal(mean_pool((output, skips)), mean_pool(output))
    assert torch.equal(mean_pool((output,)), mean_pool(output))
    for text in (torch.randn(2, 7, 3), None):
        assert torch.equal(mean_pool((text, image)), mean_pool(image))


def test_features_are_single_precision():
    """Means over many pixels would lose their digits in half precision."""
    output = torch.full((1, 2, 64, 64), 1.0, dtype=torch.bfloat16)
    output[:, :, ::2] = 1.0078125
    assert mean_pool(output).dtype == torch.float32
    torch.testing.assert_close(mean_pool(output), torch.full((1, 2), 1.00390625))


@pytest.mark.parametrize("output", [None, (), {"sample": INPUT}, torch.zeros(3), (None, None)])
def test_an_output_without_features_is_refused(output):
    with pytest.raises(ValueError, match="a tensor of two dimensions or more, got"):
        mean_pool(output)


def capturing(network: nn.Module, *names: str) -> Any:
    return capture({name: network.get_submodule(name) for name in names})


def test_captured_features_are_those_of_the_layers():
    """By name, in the order of the forward and not in that of the request; no graph is kept."""
    network = Stack()
    with capturing(network, "blocks.3", "blocks.1") as captured:
        captured.run(lambda: network(INPUT))
    hidden = network.blocks[1](network.blocks[0](network.stem(INPUT)))
    assert list(captured.features) == ["blocks.1", "blocks.3"]
    torch.testing.assert_close(captured.features["blocks.1"], hidden.detach())
    assert not captured.features["blocks.1"].requires_grad


@pytest.mark.parametrize("network", [Stack(), Catching()])
def test_later_layers_and_the_spread_are_computed_only_for_the_output(network):
    """A network that catches exceptions does not catch the early exit."""
    network.calls.clear()
    with capturing(network, "blocks.1", "blocks.3") as captured:
        assert captured.run(lambda: network(INPUT)) is None
        assert (network.calls, captured.spread) == ([0, 1, 2, 3], {})
        output = captured.run(lambda: network(INPUT), to_output=True)
    torch.testing.assert_close(output, network(INPUT))
    torch.testing.assert_close(captured.spread["blocks.3"], captured.features["blocks.3"].std(1, correction=0))


@pytest.mark.parametrize("shape", [(2, 4), (2, 5)], ids=["a forward that ends early", "a forward that fails"])
def test_hooks_exist_only_within_the_block_which_exceptions_of_the_network_leave(shape):
    network = Stack()
    with suppress(RuntimeError), capturing(network, "blocks.1", "blocks.3") as captured:
        captured.run(lambda: network(torch.ones(shape)))
        assert shape == (2, 4)
    before = dict(captured.features)
    network.calls.clear()
    network(INPUT)
    assert network.calls == [0, 1, 2, 3, 4, 5]
    assert captured.features == before


@pytest.mark.parametrize(
    ("layer", "message"), [("unused", "the forward never called unused"), ("stem", "more than once")]
)
def test_a_layer_that_is_not_called_once_is_refused(layer, message):
    network = Stack()
    with capturing(network, layer, "unused") as captured:
        with pytest.raises(ValueError, match=message):
            captured.run(lambda: network(INPUT))


def test_a_later_layer_that_writes_into_its_input_changes_no_feature():
    """As an in-place ReLU does in a forward to the output."""
    layer = nn.Linear(4, 3)
    with capture({"layer": layer}) as captured:
        captured.run(lambda: layer(INPUT).relu_(), to_output=True)
    torch.testing.assert_close(captured.features["layer"], layer(INPUT).detach())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_name_their_layer(bad):
    layer = nn.Identity()
    with capture({"up": layer}) as captured:
        captured.run(lambda: layer(INPUT))
        captured.check_finite()
        captured.run(lambda: layer(torch.tensor([[1.0, bad]])))
        captured.run(lambda: layer(INPUT))
        with pytest.raises(FloatingPointError, match="features of 'up' are not finite"):
            captured.check_finite()
