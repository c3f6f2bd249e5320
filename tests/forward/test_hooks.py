"""Hooks, pooling, early exit, and the choice of layers."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unimodal_monitor.forward.hooks import FiniteCheck, capture, find_layers, mean_pool, spread

INPUT = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


class Stack(nn.Module):
    """Six blocks; counts the calls of each."""

    def __init__(self, depth: int = 6) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(depth))
        self.unused = nn.Identity()
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            self.calls.append(number)
            x = block(x)
        return self.stem(x)


def num_hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def test_a_map_is_averaged_over_space():
    """(N, C, H, W), against a loop over pixels; a video's time is space too."""
    output = torch.randn(2, 3, 4, 5)
    expected = sum(output[:, :, i, j] for i in range(4) for j in range(5)) / 20
    torch.testing.assert_close(mean_pool(output), expected)
    torch.testing.assert_close(mean_pool(output.unsqueeze(2).expand(2, 3, 7, 4, 5)), expected)


def test_tokens_are_averaged():
    """(N, tokens, D)."""
    output = torch.randn(2, 6, 3)
    torch.testing.assert_close(mean_pool(output), sum(output[:, i] for i in range(6)) / 6)


def test_a_vector_is_taken_as_it_is():
    """(N, D) is already a feature."""
    assert torch.equal(mean_pool(INPUT), INPUT)


def test_of_a_map_and_its_skips_the_map_is_taken():
    """As a diffusers down block puts out."""
    output = torch.randn(2, 3, 4, 4)
    for skips in ((torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)), None, torch.randn(2, 3, 4, 4)):
        assert torch.equal(mean_pool((output, skips)), mean_pool(output))
    assert torch.equal(mean_pool((output,)), mean_pool(output))


@pytest.mark.parametrize("text", [torch.randn(2, 7, 3), None])
def test_of_text_and_image_tokens_the_image_is_taken(text):
    """As blocks of SD3 and Flux put out; the last one of SD3 has no text any more."""
    image = torch.randn(2, 6, 3)
    assert torch.equal(mean_pool((text, image)), mean_pool(image))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 6, 3), (2, 4), (2, 1)])
def test_the_spread_is_that_of_all_that_a_layer_puts_out(shape):
    """Over channels and positions together; a single figure has none."""
    output = torch.randn(shape)
    expected = [float(np.std(image.numpy())) for image in output]
    np.testing.assert_allclose(spread(output), expected, rtol=1e-5)
    np.testing.assert_allclose(spread((output, None)), expected, rtol=1e-5)


def test_the_spread_is_kept_of_forwards_that_run_to_the_end():
    """Others do without its cost."""
    network = Stack()
    with capture({"blocks.2": network.blocks[2]}) as captured:
        features = captured.run(lambda: network(INPUT), to_the_end=True)
        torch.testing.assert_close(captured.spread["blocks.2"], features["blocks.2"].std(1, correction=0))
        captured.run(lambda: network(INPUT))
        assert captured.spread == {}


def test_features_are_single_precision():
    """Means over many pixels would lose their digits in half precision."""
    output = torch.full((1, 2, 64, 64), 1.0, dtype=torch.bfloat16)
    output[:, :, ::2] = 1.0078125
    assert mean_pool(output).dtype == torch.float32
    torch.testing.assert_close(mean_pool(output), torch.full((1, 2), 1.00390625))


@pytest.mark.parametrize("output", [None, (), {"sample": INPUT}, torch.zeros(3), (None, None)])
def test_an_output_without_features_is_refused(output):
    """The error says what came."""
    with pytest.raises(ValueError, match="a tensor of two dimensions or more, got"):
        mean_pool(output)


def test_captured_features_are_those_of_the_layers():
    """By name, in the order of the forward and not in that of the request."""
    network = Stack()
    with capture(find_layers(network, ["blocks.3", "blocks.1"])) as captured:
        features = captured.run(lambda: network(INPUT))
    hidden = network.blocks[1](network.blocks[0](network.stem(INPUT)))
    assert list(features) == ["blocks.1", "blocks.3"]
    torch.testing.assert_close(features["blocks.1"], hidden)
    assert not features["blocks.1"].requires_grad


@pytest.mark.parametrize(("to_the_end", "calls"), [(False, [0, 1, 2, 3]), (True, [0, 1, 2, 3, 4, 5])])
def test_layers_after_the_last_hook_are_not_run(to_the_end, calls):
    """Unless somebody needs the output, which is then kept."""
    network = Stack()
    with capture(find_layers(network, ["blocks.1", "blocks.3"])) as captured:
        captured.run(lambda: network(INPUT), to_the_end=to_the_end)
    assert network.calls == calls
    assert (captured.output is not None) is to_the_end
    if to_the_end:
        torch.testing.assert_close(captured.output, Stack.forward(network, INPUT))


def test_a_later_run_forgets_the_features_of_an_earlier_one():
    """Each run answers for its own input."""
    network = Stack()
    with capture(find_layers(network, ["blocks.1"])) as captured:
        first = captured.run(lambda: network(INPUT))
        second = captured.run(lambda: network(2 * INPUT))
        assert not torch.equal(first["blocks.1"], second["blocks.1"])
        with pytest.raises(ValueError, match="never called"):
            captured.run(lambda: None)


def test_hooks_exist_only_within_the_block():
    """One for each layer inside, none after it."""
    network = Stack()
    with capture(find_layers(network, ["blocks.1", "blocks.3"])):
        assert num_hooks(network) == 2
    assert num_hooks(network) == 0


def test_an_exception_of_the_network_passes_and_takes_the_hooks_along():
    """Only the early exit is caught."""
    network = Stack()
    with pytest.raises(RuntimeError, match="cannot be multiplied"), capture(find_layers(network)) as captured:
        captured.run(lambda: network(torch.ones(2, 5)))
    assert num_hooks(network) == 0


def test_a_layer_that_is_not_called_is_named():
    """A wrong choice shows at the first forward."""
    network = Stack()
    with capture(find_layers(network, ["blocks.1", "unused"])) as captured:
        with pytest.raises(ValueError, match="the forward never called unused"):
            captured.run(lambda: network(INPUT))


def test_a_layer_called_twice_is_refused():
    """Which of its outputs would be meant is unknown."""
    network = Stack()
    with capture(find_layers(network, ["stem", "unused"])) as captured:
        with pytest.raises(ValueError, match="layer 'stem' is called more than once"):
            captured.run(lambda: network(INPUT))


def test_an_unknown_layer_is_answered_by_the_nearest():
    """A typing error is corrected, a wild guess is shown the top of the network."""
    with pytest.raises(ValueError, match=r"layer 'block.3' is not in the network; did you mean .*blocks.3"):
        find_layers(Stack(), ["block.3"])
    with pytest.raises(ValueError, match="did you mean stem, blocks, unused"):
        find_layers(Stack(), ["zzzzz"])


@pytest.mark.parametrize("names", [[], ["stem", "stem"]])
def test_layers_are_one_or_more_each_once(names):
    """No layer at all and one layer twice are mistakes."""
    with pytest.raises(ValueError, match="one name or more, each once"):
        find_layers(Stack(), names)


def test_a_stack_is_probed_at_a_third_a_half_and_two_thirds():
    """Of the longest stack of like blocks."""
    assert list(find_layers(Stack(6))) == ["blocks.2", "blocks.3", "blocks.4"]
    assert list(find_layers(Stack(12))) == ["blocks.4", "blocks.6", "blocks.8"]


def fires(network: nn.Module, *inputs: Tensor, **keywords: Any) -> dict[str, tuple[int, ...]]:
    with torch.no_grad(), capture(find_layers(network)) as captured:
        features = captured.run(lambda: network(*inputs, **keywords))
    return {name: tuple(feature.shape) for name, feature in features.items()}


def test_a_unet_of_diffusers_is_probed_at_bottleneck_and_decoder():
    """On the real class, in the order of the forward."""
    diffusers = pytest.importorskip("diffusers")
    network = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
    )
    assert fires(network, torch.randn(2, 3, 8, 8), torch.tensor(5)) == {
        "mid_block": (2, 16),
        "up_blocks.0": (2, 16),
        "up_blocks.1": (2, 16),
    }


def test_a_transformer_of_diffusers_is_probed_at_its_middle():
    """On the real class."""
    diffusers = pytest.importorskip("diffusers")
    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=3, out_channels=3, num_layers=4,
        sample_size=4, patch_size=2, num_embeds_ada_norm=10, norm_num_groups=1,
    )  # fmt: skip
    network.eval()
    found = fires(network, torch.randn(2, 3, 4, 4), timestep=torch.tensor([5, 5]), class_labels=torch.tensor([1, 2]))
    assert found == {"transformer_blocks.1": (2, 8), "transformer_blocks.2": (2, 8)}


def test_a_network_of_edm_is_probed_at_the_ends_of_its_stages():
    """Named by resolution in one ModuleDict, here with the keys of SongUNet."""
    keys = ["8x8_in0", "8x8_in1", "8x8_block0", "8x8_block1", "16x16_up", "16x16_block0", "16x16_block1", "32x32_up"]
    network = nn.Module()
    network.model = nn.Module()
    network.model.enc = nn.ModuleDict({"32x32_conv": nn.Identity(), "32x32_block0": nn.Identity()})
    network.model.dec = nn.ModuleDict({key: nn.Identity() for key in [*keys, "32x32_block0", "32x32_aux_norm"]})
    expected = ["model.dec.8x8_in1", "model.dec.8x8_block1", "model.dec.16x16_block1"]
    assert list(find_layers(network)) == expected


class Lucidrains(nn.Module):
    """The tree and the way of denoising-diffusion-pytorch's Unet: a stage is a list that nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.downs = nn.ModuleList(nn.ModuleList(nn.Linear(4, 4) for _ in range(4)) for _ in range(3))
        self.mid_block1, self.mid_attn, self.mid_block2 = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.ups = nn.ModuleList(nn.ModuleList(nn.Linear(4, 4) for _ in range(4)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        middle = [self.mid_block1, self.mid_attn, self.mid_block2]
        for layer in [*(block for stage in self.downs for block in stage), *middle]:
            x = layer(x)
        for stage in self.ups:
            for layer in stage:
                x = layer(x)
        return x


def test_a_stage_that_is_a_list_is_probed_at_its_second_block():
    """A ModuleList has no forward and would stay silent."""
    assert list(fires(Lucidrains(), INPUT)) == ["mid_block2", "ups.0.1", "ups.1.1"]


def test_a_bottleneck_inside_a_wrapper_is_found_with_its_decoder():
    """As in LDM, where the U-Net lies at `model.diffusion_model`."""
    network = nn.Module()
    network.diffusion_model = nn.Module()
    network.diffusion_model.middle_block = nn.Identity()
    network.diffusion_model.output_blocks = nn.ModuleList([nn.Identity(), nn.Identity(), nn.Identity()])
    names = ["middle_block", "output_blocks.0", "output_blocks.1"]
    assert list(find_layers(network)) == [f"diffusion_model.{name}" for name in names]


@pytest.mark.parametrize("network", [nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 4), Stack(2)])
def test_a_network_without_a_known_shape_asks_for_names(network):
    """Better no guess than a wrong one."""
    with pytest.raises(ValueError, match=r"name its layers: layers=\[...\]"):
        find_layers(network)


def check_finite(*batches):
    finite = FiniteCheck()
    for features in batches:
        finite.add(features)
    finite.check()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_name_their_layer(bad):
    """A network that diverged is told from a fault of the monitor."""
    with pytest.raises(FloatingPointError, match="features of 'up' are not finite"):
        check_finite({"mid": INPUT, "up": torch.tensor([[1.0, bad]])}, {"mid": INPUT, "up": INPUT})
    check_finite({"mid": INPUT})


def test_a_single_layer_may_be_given_as_a_string():
    """As configuration files have it."""
    assert list(find_layers(Stack(), "blocks.1")) == ["blocks.1"]
