"""The demo: one small denoiser on few members and on many, watched by the real callback in a real Trainer."""

import logging
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, IterableDataset

from unimodal_monitor.callback import UnimodalMonitor
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.theory.mlp import MLPDenoiser
from unimodal_monitor.theory.molrg import MoLRG

FEW, MANY = 300, 10_000
STEPS, EVERY_N_STEPS, BATCH_SIZE = 4_000, 250, 512
NUM_HELDOUT, NUM_FIT = 7_000, 3_000


class MLPJob(pl.LightningModule):
    """EDM training of `MLPDenoiser` with an EMA; it knows nothing of the monitor."""

    def __init__(self, data: MoLRG) -> None:
        super().__init__()
        self.net = MLPDenoiser(data.dim, data.std)
        self.ema = AveragedModel(self.net, avg_fn=_warmed_up_average)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """EDM's weighted denoising error."""
        std = self.net.data_std
        sigma = (torch.randn(len(batch)) - 0.7).exp() * (std / 0.5)
        weight = (sigma**2 + std**2) / sigma**2
        error = (self.net(batch + sigma[:, None] * torch.randn_like(batch), sigma) - batch).square()
        loss: Tensor = (weight[:, None] * error).mean()
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then average."""
        super().optimizer_step(*args, **kwargs)
        self.ema.update_parameters(self.net)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW at a constant rate."""
        return torch.optim.AdamW(self.parameters(), lr=2e-3, weight_decay=0.0)


class RandomBatches(IterableDataset[Tensor]):
    """Batches drawn with replacement, without end."""

    def __init__(self, samples: Tensor) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            yield self.samples[torch.randint(len(self.samples), (BATCH_SIZE,))]


def run_demo(folder: Path, *, seed: int = 0) -> dict[str, UnimodalMonitor]:
    """Train on few members and on many; returns the two monitors."""
    return {name: watch_training(num, folder / name, seed=seed) for name, num in (("few", FEW), ("many", MANY))}


def watch_training(num_members: int, folder: Path, *, seed: int) -> UnimodalMonitor:
    """One training run with the callback, up to the alarm or the step limit."""
    start, data = time.perf_counter(), MoLRG()
    members, heldout = data.sample(num_members, seed=seed + 1), data.sample(NUM_HELDOUT, seed=seed + 2)
    monitor = UnimodalMonitor(
        ProbeSet.from_datasets(members, heldout, num_fit=NUM_FIT),
        every_n_train_steps=EVERY_N_STEPS,
        on_alarm="stop",
        layer="blocks.1",
        batch_size=9_000,
        dirpath=folder,
    )
    print(f"\n{num_members} members, at most {STEPS} steps")
    trainer = _quiet_trainer(monitor, folder)
    pl.seed_everything(seed, verbose=False)
    trainer.fit(MLPJob(data), DataLoader(RandomBatches(members[0]), batch_size=None))
    print(f"{num_members} members: stopped at step {trainer.global_step} of {STEPS}, {_summary(monitor)}, "
          f"{time.perf_counter() - start:.0f} s; see {monitor.written_to}")  # fmt: skip
    return monitor


def _quiet_trainer(monitor: UnimodalMonitor, folder: Path) -> pl.Trainer:
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    return pl.Trainer(
        accelerator="cpu", max_steps=STEPS, callbacks=[monitor], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip


def _summary(monitor: UnimodalMonitor) -> str:
    last = monitor.history[-1]
    return f"{last.state.value}: {last.evidence}"


def _warmed_up_average(averaged: Tensor, current: Tensor, num_averaged: Tensor | int) -> Tensor:
    decay = min(0.998, (1 + int(num_averaged)) / (10 + int(num_averaged)))
    return averaged.lerp(current, 1 - decay)
