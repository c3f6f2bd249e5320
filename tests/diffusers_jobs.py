"""Networks, schedulers and Lightning modules as small as they get, for the tests of what is found in a job."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from unimodal_monitor.denoisers import Denoiser

diffusers: Any = pytest.importorskip("diffusers")

SMALL = {"sample_size": 8, "block_out_channels": (8,), "layers_per_block": 1, "norm_num_groups": 4}


def unet(**kwargs) -> nn.Module:
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "add_attention": False}
    return diffusers.UNet2DModel(**SMALL, **blocks, **kwargs).eval()


def text_unet() -> nn.Module:
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    attention = {"cross_attention_dim": 6, "attention_head_dim": 4}
    return diffusers.UNet2DConditionModel(**SMALL, **blocks, **attention, in_channels=3, out_channels=3).eval()


def dit() -> nn.Module:
    return diffusers.DiTTransformer2DModel(
        sample_size=8, in_channels=3, out_channels=6, num_layers=1, num_attention_heads=1, attention_head_dim=8,
        patch_size=4, norm_num_groups=1, num_embeds_ada_norm=10,
    ).eval()  # fmt: skip


class Precond(nn.Module):
    """The signature of EDM's EDMPrecond."""

    def __init__(self) -> None:
        super().__init__()
        self.sigma_min, self.sigma_max = 0, float("inf")
        self.model = unet()

    def forward(self, x, sigma, class_labels=None, force_fp32=False, **model_kwargs):
        assert class_labels is None
        return x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)


class SiT(nn.Module):
    """With the interface of DiT's label embedder."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.y_embedder = nn.Module()
        self.y_embedder.num_classes = 10
        self.y_embedder.embedding_table = nn.Embedding(10 + (dropout > 0), 4)

    def forward(self, x, t, y):
        return x * y.reshape(-1, 1, 1, 1)


class ADM(nn.Module):
    """Class-conditional as in guided-diffusion: `num_classes` on the network, a default that does not mean optional."""

    num_classes = 10

    def forward(self, x, timesteps, y=None):
        return x


class Job(pl.LightningModule):
    """A job that holds what it is given by name."""

    def __init__(self, **parts) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def scheduler(name: str = "DDPM", **kwargs: Any) -> Any:
    return getattr(diffusers, f"{name}Scheduler")(**kwargs)


@torch.no_grad()
def denoised(denoiser: Denoiser) -> Tensor:
    """The result of a forward, which has the right shape and is finite."""
    result = denoiser(torch.zeros(2, 3, 8, 8), torch.tensor([0.1, 1.0]))
    assert result.shape == (2, 3, 8, 8)
    assert result.isfinite().all()
    return result
