"""The networks and images of the golden record."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

from unimodal_monitor.theory.mlp import MLPDenoiser

FOLDER = Path(__file__).parent
MLP_STEPS = (250, 750, 1250, 2000, 2750, 3500, 4250)
UNET_STEPS = (200, 800, 2000)


class MLP(MLPDenoiser):
    """In the precision of its weights."""

    def __init__(self) -> None:
        super().__init__(15, 0.626)

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        return super().forward(noised, sigma.to(noised))


def unet() -> nn.Module:
    """A diffusers U-Net for (N, 1, 8, 8) digits."""
    import diffusers

    net: Any = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
    )  # fmt: skip
    return net


def digits() -> tuple[Tensor, Tensor]:
    """(1797, 1, 8, 8) images in [-1, 1] and their classes, in a fixed order."""
    data = load_digits()
    order = torch.randperm(len(data.images), generator=torch.Generator().manual_seed(0))
    return (torch.from_numpy(data.images).float().unsqueeze(1) / 8 - 1)[order], torch.from_numpy(data.target)[order]


def trained(net: nn.Module, name: str) -> nn.Module:
    """The network with the weights of a file, in double precision, in which processors agree."""
    net.load_state_dict({key: value.double() for key, value in load_file(FOLDER / name).items()}, assign=True)
    return net.double().eval()
