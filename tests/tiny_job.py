"""A small Lightning job with dropout and an EMA, for tests of the callback."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from unimodal_monitor import ProbeSet

CLASSES, WIDTH = 3, 12


def blobs(num: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """(num, WIDTH) points around one centre for each class, and the (num,) classes."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(num) % CLASSES
    return centres[labels] + 0.8 * torch.randn(num, WIDTH, generator=generator), labels


class TinyDenoiser(nn.Module):
    """`net(noised, sigma)`: three blocks with dropout and batch norm, both of which a careless check disturbs."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.SiLU(), nn.Dropout(0.2)) for _ in range(3)
        )
        self.calls = 0

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        hidden = noised / (1 + sigma.view(-1, 1) ** 2).sqrt()
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return hidden


class TinyJob(pl.LightningModule):
    """Trains `TinyDenoiser`; keeps every loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = TinyDenoiser()
        self.ema = AveragedModel(self.net, avg_fn=get_ema_avg_fn(0.9))
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, _ = batch
        sigma = torch.randn(len(images)).exp()
        loss = (self.net(images + sigma[:, None] * torch.randn_like(images), sigma) - images).square().mean()
        self.losses.append(loss.item())
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.ema.update_parameters(self.net)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def tiny_probe_set() -> ProbeSet:
    """96 members and 300 held-out points, a third of these to fit the probe."""
    return ProbeSet.from_datasets(blobs(96, seed=1), blobs(300, seed=2))


def tiny_loader() -> DataLoader:
    return DataLoader(TensorDataset(*blobs(96, seed=1)), batch_size=16, shuffle=True)


def tiny_trainer(folder: Any, **options: Any) -> pl.Trainer:
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "logger": False,
    }
    return pl.Trainer(**{**quiet, "accelerator": "cpu", "max_steps": 50, "default_root_dir": str(folder), **options})
