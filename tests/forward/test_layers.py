"""Which layers are probed, by names and by the shape of known networks."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unimodal_monitor.forward.hooks import capture
from unimodal_monitor.forward.layers import find_layers


class Stack(nn.Module):
    """Blocks of one kind behind a stem."""

    def __init__(self, depth: int = 6) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(depth))


def test_layers_are_found_by_name_and_the_judged_one_comes_last():
    network = Stack()
    found = find_layers(network, "blocks.1", ["blocks.4", "stem"])
    assert list(found.items()) == [(name, network.get_submodule(name)) for name in ("blocks.4", "stem", "blocks.1")]
    assert list(find_layers(network, extra_layers=["stem"])) == ["stem", *find_layers(network)]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("block.3",), r"layer='block.3' is not in the network; did you mean .*blocks.3"),
        ((None, ["block.3"]), r"layer='block.3' is not in the network; did you mean .*blocks.3"),
        (("zzzzz",), "did you mean stem, blocks"),
        (("stem", ["stem"]), "must be different names"),
        ((None, ["blocks.4"]), "must be different names"),
        (("blocks.1", "stem"), "extra_layers='stem' is a string"),
    ],
)
def test_names_that_are_unknown_or_given_twice_are_refused_and_the_nearest_ones_offered(names, message):
    with pytest.raises(ValueError, match=message):
        find_layers(Stack(), *names)


def idle(*names: str) -> nn.ModuleDict:
    return nn.ModuleDict({name: nn.Identity() for name in names})


EDM_BLOCKS = ("8x8_in0", "8x8_in1", "8x8_block0", "8x8_block1", "16x16_up", "16x16_block0", "16x16_block1", "32x32_up")
EDM = nn.ModuleDict({"enc": idle("32x32_block0"), "dec": idle(*EDM_BLOCKS, "32x32_block0", "32x32_aux_norm")})
LDM = nn.ModuleDict({"middle_block": nn.Identity(), "output_blocks": Stack(3).blocks})
LUCIDRAINS = {**idle("mid_block1", "mid_block2"), "ups": nn.ModuleList(Stack(4).blocks for _ in range(3))}


@pytest.mark.parametrize(
    ("network", "names"),
    [
        (Stack(6), ["blocks.2", "blocks.3", "blocks.4"]),
        (Stack(12), ["blocks.4", "blocks.6", "blocks.8"]),
        (nn.ModuleDict({"model": EDM}), ["model.dec.8x8_in1", "model.dec.8x8_block1", "model.dec.16x16_block1"]),
        (nn.ModuleDict({"unet": LDM}), ["unet.middle_block", "unet.output_blocks.0", "unet.output_blocks.1"]),
        (nn.ModuleDict(LUCIDRAINS), ["mid_block2", "ups.0.1", "ups.1.1"]),
    ],
    ids=["a stack at 1/3, 1/2 and 2/3", "a deep stack", "ends of EDM's stages", "LDM in a wrapper", "uncalled lists"],
)
def test_layers_of_known_architectures_are_found(network, names):
    assert list(find_layers(network)) == names


def fires(network: nn.Module, *inputs: Tensor, **keywords: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of the features that the layers really put out."""
    with torch.no_grad(), capture(find_layers(network)) as captured:
        captured.run(lambda: network(*inputs, **keywords))
    return {name: tuple(feature.shape) for name, feature in captured.features.items()}


def test_a_unet_of_diffusers_is_probed_at_bottleneck_and_decoder():
    diffusers = pytest.importorskip("diffusers")
    network = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 16, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=4,
        down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3,
    )  # fmt: skip
    found = fires(network, torch.randn(2, 3, 8, 8), torch.tensor(5))
    assert found == dict.fromkeys(("mid_block", "up_blocks.0", "up_blocks.1"), (2, 16))


def test_a_transformer_of_diffusers_is_probed_at_its_middle():
    diffusers = pytest.importorskip("diffusers")
    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=3, out_channels=3, num_layers=4,
        sample_size=4, patch_size=2, num_embeds_ada_norm=10, norm_num_groups=1,
    )  # fmt: skip
    network.eval()
    found = fires(network, torch.randn(2, 3, 4, 4), timestep=torch.tensor([5, 5]), class_labels=torch.tensor([1, 2]))
    assert found == {"transformer_blocks.1": (2, 8), "transformer_blocks.2": (2, 8)}


@pytest.mark.parametrize("network", [nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 4), Stack(2)])
def test_a_network_without_a_known_shape_asks_for_a_name(network):
    with pytest.raises(ValueError, match=r"give layer='...'"):
        find_layers(network)
