"""Checkpoints of runs whose copies were counted: networks, images, features. Other benchmarks import it.

    python benchmarks/zoo.py --zoo ZOO --data CIFAR10 --cache CACHE --num-images 5400

writes the features of every checkpoint to CACHE: a minute and 20 MB each on one core.
"""

import argparse
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from unimodal_monitor import EDMDenoiser
from unimodal_monitor.forward.hooks import capture
from unimodal_monitor.forward.layers import find_layers
from unimodal_monitor.forward.noise import paper_sigmas
from unimodal_monitor.method import Pass, forward

LAYERS = ("unet.mid_block", "unet.up_blocks.0", "unet.up_blocks.1")
"""Probed layers, the judged one last."""
NUM_UNSEEN = 848
"""Rows at the end of the sample order that no run has trained on."""


@dataclass(frozen=True)
class Checkpoint:
    """One network of a run, and how much it copies."""

    path: Path
    num_members: int
    step: int
    images_seen: int
    num_samples: int
    copies_third: int

    @property
    def copy_fraction(self) -> float:
        return self.copies_third / self.num_samples

    @property
    def label(self) -> str:
        """Members, thousands of images seen, copies: the first cells of a table's row."""
        return f"{self.num_members} | {self.images_seen // 1000}k | {100 * self.copy_fraction:.1f}"


class EDMPrecond(nn.Module):
    """EDM's preconditioning around the zoo's network."""

    def __init__(self, unet: UNet2DModel, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.unet, self.sigma_data = unet, sigma_data

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        s = sigma.view(-1, 1, 1, 1)
        total = s**2 + self.sigma_data**2
        c_skip, c_out, c_in = self.sigma_data**2 / total, s * self.sigma_data / total.sqrt(), total.rsqrt()
        return c_skip * noised + c_out * self.unet(c_in * noised, 1000 * sigma.log() / 4).sample.float()


def zoo_runs(zoo: Path) -> list[list[Checkpoint]]:
    """The checkpoints of each run, by number of members and images seen."""
    known = Checkpoint.__dataclass_fields__
    found = [
        Checkpoint(zoo / entry["file"], **{k: v for k, v in entry.items() if k in known})
        for entry in json.loads((zoo / "index.json").read_text())
    ]
    found.sort(key=lambda checkpoint: (checkpoint.num_members, checkpoint.images_seen))
    return [list(run) for _, run in groupby(found, lambda checkpoint: checkpoint.num_members)]


def build_unet() -> UNet2DModel:
    """The zoo's network, 1.06 million parameters."""
    return UNet2DModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(32, 64, 64),
        norm_num_groups=8,
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
    )


def load_denoiser(checkpoint: Checkpoint) -> EDMDenoiser:
    """The averaged network of a checkpoint, in eval mode."""
    unet = build_unet()
    unet.load_state_dict({name: tensor.float() for name, tensor in load_file(checkpoint.path).items()})
    return EDMDenoiser(EDMPrecond(unet).eval().to(memory_format=torch.channels_last))


def read_split(data: Path, split: str) -> tuple[Tensor, Tensor]:
    """(N, 3, 16, 16) area means, 0 to 255, and (N,) labels."""
    rows = pq.read_table(data / f"{split}.parquet").to_pylist()
    column = "img" if "img" in rows[0] else "image"
    pixels = np.stack([np.array(Image.open(io.BytesIO(row[column]["bytes"])).convert("RGB")) for row in rows])
    small = F.adaptive_avg_pool2d(torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), 16).round()
    return small.byte(), torch.tensor([row["label"] for row in rows])


def read_images(zoo: Path, data: Path, num_images: int | None) -> dict[str, Any]:
    """Members of all runs in their order, images that no run has seen with labels, and noise levels."""
    train, train_labels = read_split(data, "train")
    test, test_labels = read_split(data, "test")
    order = torch.from_numpy(np.load(zoo / "order.npy"))
    images = torch.cat([train[order[-NUM_UNSEEN:]], test])
    labels = torch.cat([train_labels[order[-NUM_UNSEEN:]], test_labels])
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:num_images]
    sigmas = paper_sigmas(float((images[chosen].float() / 127.5).std()))
    return {"members": train[order[:-NUM_UNSEEN]], "images": images[chosen], "labels": labels[chosen], "sigmas": sigmas}


@torch.no_grad()
def features(denoiser: EDMDenoiser, images: Tensor, sigmas: Tensor) -> dict[str, Tensor]:
    """{layer: (K, N, D)} features of noised images, in half precision; the forwards are in float32."""
    run = Pass(images, torch.arange(len(images)))
    with capture(find_layers(denoiser.network, LAYERS[-1], LAYERS[:-1])) as captured:
        parts = [batch.features for batch in forward(denoiser, captured, run, sigmas=sigmas, seed=0, batch_size=432)]
    return {layer: torch.cat([part[layer].half() for part in parts], 1) for layer in LAYERS}


def first_seen(run: Sequence[dict], is_met: Callable[[dict], bool]) -> str:
    """Thousands of images seen at the first checkpoint of a run whose row meets the condition."""
    return next((f"{row['checkpoint'].images_seen // 1000}k" for row in run if is_met(row)), "never")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True, help="folder with index.json, order.npy and checkpoints")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("I", "N"), help="part I of N, from 0")
    parser.add_argument("--num-images", type=int, help="unseen images, drawn at random (default: all)")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    stored = read_images(args.zoo, args.data, args.num_images)
    torch.save(stored, args.cache / "images.pt")
    part, num_parts = args.part
    for checkpoint in [checkpoint for run in zoo_runs(args.zoo) for checkpoint in run][part::num_parts]:
        path = args.cache / f"{checkpoint.path.stem}.pt"
        if not path.exists():
            images = stored["images"].float() / 127.5 - 1
            torch.save(features(load_denoiser(checkpoint), images, stored["sigmas"]), path)
            print(path.stem, flush=True)


if __name__ == "__main__":
    main()
