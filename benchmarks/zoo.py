"""Checkpoints of runs whose copies were counted: networks, images and features. Imported by other benchmarks.

    python benchmarks/zoo.py --zoo ZOO --data CIFAR10 --cache CACHE

writes the features of every checkpoint under CACHE: half a minute each on one core, 40 MB each.
"""

import argparse
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from unimodal_monitor.denoisers.edm import EDMDenoiser
from unimodal_monitor.denoisers.network import Network
from unimodal_monitor.forward.hooks import capture, find_layers
from unimodal_monitor.forward.noise import paper_sigmas, unit_noise

LAYERS = ("unet.mid_block", "unet.up_blocks.0", "unet.up_blocks.1")
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


def checkpoints(zoo: Path) -> list[Checkpoint]:
    """All of the zoo, by number of members and images seen."""
    known = Checkpoint.__dataclass_fields__
    found = [
        Checkpoint(zoo / entry["file"], **{k: v for k, v in entry.items() if k in known})
        for entry in json.loads((zoo / "index.json").read_text())
    ]
    return sorted(found, key=lambda checkpoint: (checkpoint.num_members, checkpoint.images_seen))


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
    return EDMDenoiser(Network(EDMPrecond(unet).eval().to(memory_format=torch.channels_last)))


def read_split(data: Path, split: str) -> tuple[Tensor, Tensor]:
    """(N, 3, 16, 16) area means in [-1, 1] and (N,) labels."""
    rows = pq.read_table(data / f"{split}.parquet").to_pylist()
    column = "img" if "img" in rows[0] else "image"
    pixels = np.stack([np.array(Image.open(io.BytesIO(row[column]["bytes"])).convert("RGB")) for row in rows])
    small = F.adaptive_avg_pool2d(torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), 16).round()
    return small / 127.5 - 1, torch.tensor([row["label"] for row in rows])


def unseen_images(zoo: Path, data: Path) -> tuple[Tensor, Tensor]:
    """The 848 training images that no run has seen, then the 10,000 test images, with labels."""
    train, train_labels = read_split(data, "train")
    test, test_labels = read_split(data, "test")
    rows = torch.from_numpy(np.load(zoo / "order.npy"))[-NUM_UNSEEN:]
    return torch.cat([train[rows], test]), torch.cat([train_labels[rows], test_labels])


def features(denoiser: EDMDenoiser, images: Tensor, sigmas: Tensor, *, batch: int = 48) -> dict[str, Tensor]:
    """{layer: (K, N, D)} half precision, of noised images; float32 forwards (bf16 is slower where a CPU lacks it)."""
    kept: dict[str, list[Tensor]] = {layer: [] for layer in LAYERS}
    with torch.no_grad():
        for rows, noised, sigma in _noised(images, sigmas, batch):
            with capture(find_layers(denoiser.network, LAYERS)) as captured:
                found = captured.run(partial(denoiser, noised, sigma))
            for layer, feature in found.items():
                kept[layer].append(feature.view(len(sigmas), rows, -1).half())
    return {layer: torch.cat(parts, 1) for layer, parts in kept.items()}


def _noised(images: Tensor, sigmas: Tensor, batch: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    for start in range(0, len(images), batch):
        clean = images[start : start + batch]
        noise = unit_noise(range(start, start + len(clean)), clean.shape[1:], draw=0, seed=0)
        noised = clean + sigmas.to(clean).view(-1, 1, 1, 1, 1) * noise
        yield len(clean), noised.flatten(0, 1), sigmas.to(clean).repeat_interleave(len(clean))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True, help="folder with index.json, order.npy and checkpoints")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("I", "N"), help="the I-th of N parts")
    parser.add_argument("--num-images", type=int, help="of those that no run has seen, drawn at random (default: all)")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    images, labels = unseen_images(args.zoo, args.data)
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[: args.num_images]
    images, labels = images[chosen], labels[chosen]
    sigmas = paper_sigmas(float(images.std()))
    torch.save({"labels": labels, "sigmas": sigmas, "std": float(images.std())}, args.cache / "images.pt")
    part, num_parts = args.part
    for checkpoint in checkpoints(args.zoo)[part::num_parts]:
        path = args.cache / f"{checkpoint.path.stem}.pt"
        if not path.exists():
            torch.save(features(load_denoiser(checkpoint), images, sigmas), path)
            print(path.stem, flush=True)


if __name__ == "__main__":
    main()
