"""Train a small diffusion model on CIFAR-10 with PyTorch Lightning, and watch it with one callback.

    python examples/cifar10_lightning.py --data data/cifar10 --precond edm --num-images 256 --num-probe 10_000
    python examples/cifar10_lightning.py --data data/cifar10 --precond edm --num-images 16_384 --images-seen 360_000
    python examples/cifar10_lightning.py --data data/cifar10 --num-images 256 --on-alarm stop --logger wandb

`--data` holds `train*.parquet` and `test*.parquet` (Hugging Face's `uoft-cs/cifar10`), or `train/CLASS/*.png` and
`test/CLASS/*.png`. On two CPU cores a million images take about half an hour, without the checks.

With 256 images (first command) the curve has an interior peak at 40,000 images seen and has lost it by 100,000; the
alarm is raised. With 16,384 (second) it has one from 60,000 on. The third trains on the epsilon loss of a
`DDPMScheduler` and stops when the alarm is raised. Tables and figures are in `examples/README.md`. Checks and figures
are written to the folder `unimodal` beside the logs under `--out`, and a profile to `--out`.
"""

import argparse
import io
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.profilers import SimpleProfiler
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from unimodal_monitor import LogisticProbe, ProbeSet, RidgeProbe, UnimodalMonitor

PROBES = {"ridge": RidgeProbe, "logistic": LogisticProbe}
LOGGERS = {"csv": CSVLogger, "tensorboard": TensorBoardLogger, "wandb": partial(WandbLogger, offline=True)}


def build_unet(size: int) -> UNet2DModel:
    """1.06 million parameters at any `size` that four divides."""
    return UNet2DModel(
        sample_size=size,
        layers_per_block=1,
        block_out_channels=(32, 64, 64),
        norm_num_groups=8,
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
    )


class EDMPrecond(nn.Module):
    def __init__(self, unet: UNet2DModel, sigma_data: float = 0.5):
        super().__init__()
        self.unet = unet
        self.sigma_data = sigma_data

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """(N, 3, H, W) `images + sigma * noise` and (N,) `sigma` -> images. Source: arXiv 2206.00364, table 1."""
        s = sigma.view(-1, 1, 1, 1)
        total = s**2 + self.sigma_data**2
        c_skip, c_out, c_in = self.sigma_data**2 / total, s * self.sigma_data / total.sqrt(), total.rsqrt()
        # The timestep embedding is made for 0 ... 1000.
        c_noise = 1000 * sigma.log() / 4
        return c_skip * noised + c_out * self.unet(c_in * noised, c_noise).sample.float()


class Diffusion(pl.LightningModule):
    """Optimizer and EMA, the same for both losses."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(batch[0])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.0)

    def on_fit_start(self) -> None:
        self.ema.to(self.device)

    def optimizer_step(self, *args, **kwargs) -> None:
        super().optimizer_step(*args, **kwargs)
        self.ema.step(self.parameters())

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["ema"] = self.ema.state_dict()

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.ema.load_state_dict(checkpoint["ema"])


class DDPM(Diffusion):
    def __init__(self, size: int):
        super().__init__()
        self.unet = build_unet(size)
        self.scheduler = DDPMScheduler(num_train_timesteps=1000, prediction_type="epsilon")
        self.ema = EMAModel(self.unet.parameters(), decay=0.998, foreach=True)

    def loss(self, images: Tensor) -> Tensor:
        noise = torch.randn_like(images)
        timesteps = torch.randint(self.scheduler.config.num_train_timesteps, images.shape[:1], device=self.device)
        noised = self.scheduler.add_noise(images, noise, timesteps)
        return F.mse_loss(self.unet(noised, timesteps).sample.float(), noise)


class EDM(Diffusion):
    def __init__(self, size: int):
        super().__init__()
        self.net = EDMPrecond(build_unet(size))
        self.ema = EMAModel(self.net.parameters(), decay=0.998, foreach=True)

    def loss(self, images: Tensor) -> Tensor:
        sigma = (1.2 * torch.randn(len(images), device=self.device) - 1.2).exp()
        s = sigma.view(-1, 1, 1, 1)
        weight = (s**2 + self.net.sigma_data**2) / (s * self.net.sigma_data) ** 2
        denoised = self.net(images + s * torch.randn_like(images), sigma)
        return (weight * (denoised - images) ** 2).mean()


def read_files(data: Path, split: str) -> tuple[list, list[int]]:
    """Paths or open buffers of encoded images, and their labels."""
    if shards := sorted(data.glob(f"{split}*.parquet")):
        rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
        column = "img" if "img" in rows[0] else "image"
        return [io.BytesIO(row[column]["bytes"]) for row in rows], [row["label"] for row in rows]
    paths = sorted((data / split).glob("*/*.png"))
    if not paths:
        raise ValueError(f"--data {data} has neither {split}*.parquet nor {split}/CLASS/*.png")
    classes = sorted({path.parent.name for path in paths})
    return paths, [classes.index(path.parent.name) for path in paths]


def load_images(data: Path, split: str, *, size: int, num_images: int | None = None, seed: int = 0) -> TensorDataset:
    """Area means in [-1, 1] of `num_images` drawn by `seed`, None for all; `Image.resize` would round twice."""
    files, labels = read_files(data, split)
    chosen = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed))[:num_images]
    pixels = [torch.from_numpy(np.array(Image.open(files[i]).convert("RGB"))).permute(2, 0, 1) for i in chosen]
    images = torch.stack([F.adaptive_avg_pool2d(image.float(), size).round() for image in pixels])
    return TensorDataset(images / 127.5 - 1, torch.tensor(labels)[chosen])


def build_trainer(args: argparse.Namespace, *callbacks: pl.Callback) -> pl.Trainer:
    args.out.mkdir(parents=True, exist_ok=True)
    return pl.Trainer(
        accelerator=args.device,
        devices=1,
        precision=args.precision,
        max_steps=args.images_seen // args.batch_size,
        logger=LOGGERS[args.logger](save_dir=args.out),
        callbacks=list(callbacks),
        profiler=SimpleProfiler(dirpath=args.out, filename="profile"),
        enable_progress_bar=not args.quiet,
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True)
    add("--precond", choices=["ddpm", "edm"], default="ddpm")
    add("--size", type=int, default=16, help="pixels a side, by area averaging")
    add("--num-images", type=int, help="training images, drawn by --seed (default: all)")
    add("--images-seen", type=int, default=300_000, help="length of the run")
    add("--batch-size", type=int, default=64)
    add("--checks-every", type=int, default=20_000, help="images seen between two checks")
    add("--check-batch", type=int, default=256, help="inputs of one forward of a check, all levels together")
    add("--num-probe", type=int, default=7_000, help="held-out images, to fit and to score the probe")
    add("--layer", help="dotted name of the judged layer (default: the second stage of the decoder)")
    add("--probe", choices=list(PROBES), default="ridge")
    add("--on-alarm", choices=["warn", "stop"], default="warn")
    add("--precision", default="bf16-mixed")
    add("--device", default="auto", help="Lightning's accelerator: auto, cpu, gpu, ...")
    add("--logger", choices=["csv", "tensorboard", "wandb"], default="csv")
    add("--out", type=Path, default=Path("runs/cifar10"))
    add("--seed", type=int, default=1)
    add("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    pl.seed_everything(args.seed)
    torch.set_float32_matmul_precision("high")
    train = load_images(args.data, "train", size=args.size, num_images=args.num_images, seed=args.seed)
    test = load_images(args.data, "test", size=args.size)
    # One epoch for the whole run: permutations of the images one after another; a batch is one indexing operation.
    order = RandomSampler(train, num_samples=args.images_seen)
    loader = DataLoader(train, sampler=BatchSampler(order, args.batch_size, drop_last=True), batch_size=None)
    images = ProbeSet.from_datasets(
        members=train, heldout=test, num_members=min(len(train), 1000), num_heldout=args.num_probe
    )
    every = max(1, args.checks_every // args.batch_size)
    monitor = UnimodalMonitor(
        images,
        every_n_train_steps=every,
        on_alarm=args.on_alarm,
        layer=args.layer,
        probe=PROBES[args.probe](),
        batch_size=args.check_batch,
    )
    trainer = build_trainer(args, monitor)
    trainer.fit(EDM(args.size) if args.precond == "edm" else DDPM(args.size), loader)
    seconds = sum(trainer.profiler.recorded_durations["run_training_batch"])
    print(f"{1000 * seconds / (trainer.global_step * args.batch_size):.2f} ms per image and training step")


if __name__ == "__main__":
    main()
