"""Networks, schedulers and Lightning modules as small as they get, for the tests of what is found in a job."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from unimodal_monitor.denoisers import Denoiser

diffusers: Any = pytest.importorskip("diffusers")

IMAGES = torch.zeros(2, 3, 8, 8)
SIGMAS = torch.tensor([0.1, 1.0])


def unet(**kwargs) -> nn.Module:
    return diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), add_attention=False, **kwargs,
    ).eval()  # fmt: skip


def text_unet() -> nn.Module:
    return diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",), cross_attention_dim=6,
        attention_head_dim=4,
    ).eval()  # fmt: skip


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


class LabelEmbedder(nn.Module):
    """The interface of DiT's."""

    def __init__(self, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embedding_table = nn.Embedding(num_classes + (dropout > 0), 4)


class SiT(nn.Module):
    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.y_embedder = LabelEmbedder(10, dropout)

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
    """A forward of the whole denoiser, whose result is at least of the right shape and finite."""
    result = denoiser(IMAGES, SIGMAS)
    assert result.shape == IMAGES.shape
    assert result.isfinite().all()
    return result
