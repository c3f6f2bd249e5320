"""A Monitor whose forwards come from the features that `zoo.py` cached: the same code, without a network."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from zoo import LAYERS, Checkpoint, load_denoiser

from unimodal_monitor.data.image_set import ImageSet
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.forwards import Batch
from unimodal_monitor.monitor import Monitor


class CachedForwards:
    """Gives out batches as `Forwards` does."""

    def __init__(self, monitor: "CachedMonitor", layers: Any, noising: Any) -> None:
        self.monitor, self.layers = monitor, list(layers)
        self.noising, self.device = noising, torch.device("cpu")
        self.captured = self

    def batches(self, images: ImageSet, rows: Tensor, **_: Any) -> Iterator[Batch]:
        levels = torch.isin(self.monitor.noising.sigmas, self.noising.sigmas).nonzero()[:, 0]
        for part in rows.split(500):
            where = images.indices[part]
            features = {layer: self.monitor.features[layer][levels][:, where].float() for layer in self.layers}
            nothing = torch.empty(len(levels), len(part), 0)
            yield Batch(features, images.labels[part], part, 0, nothing[0], nothing)


class CachedMonitor(Monitor):
    """Looks at whatever checkpoint `show` was called with."""

    features: dict[str, Tensor]

    def show(self, cache: Path, checkpoint: Checkpoint) -> None:
        self.features = torch.load(cache / f"{checkpoint.path.stem}.pt")

    @contextmanager
    def _looking(self, layers: Any, precision: Any, *, noising: Any = None, progress: Any = None) -> Iterator[Any]:
        yield CachedForwards(self, layers, noising or self.noising)


def cached_probe_set(cache: Path, *, seed: int) -> tuple[ProbeSet, Tensor]:
    """Labels and rows of the cached images, with pixels that tell them apart and members of the right std; levels."""
    stored = torch.load(cache / "images.pt")
    num = len(stored["labels"])
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    values = torch.cat([torch.arange(num) / num, torch.tensor([-1.0, 1.0])]) * stored["std"]
    pixels = values.view(-1, 1, 1, 1).expand(-1, 3, 16, 16)
    fit, scored = order[: num // 3].sort().values, order[num // 3 :].sort().values
    roles = (ImageSet(pixels[rows].contiguous(), stored["labels"][rows], rows) for rows in (fit, scored))
    fit_set, heldout = roles
    return ProbeSet(ImageSet(pixels[num:].contiguous()), heldout, fit_set), stored["sigmas"]


def cached_monitor(cache: Path, checkpoint: Checkpoint, *, seed: int = 0, **options: Any) -> CachedMonitor:
    """A monitor for the run of this checkpoint; `seed` splits the images into those that fit and those scored."""
    probe_set, sigmas = cached_probe_set(cache, seed=seed)
    denoiser = load_denoiser(checkpoint)
    return CachedMonitor(denoiser, probe_set, sigmas=sigmas, layers=LAYERS, witnesses=False, **options)
