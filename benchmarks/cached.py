"""Checks of the zoo from what `zoo.py` cached: images, and features in place of forwards."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from unimodal_monitor import ProbeSet
from unimodal_monitor.data.image_set import ImageSet
from unimodal_monitor.method import Batch, Go, Pass, Plan


def cached_probe_set(cache: Path, num_members: int, *, seed: int) -> tuple[ProbeSet, Tensor]:
    """The members of a run with images that it has not seen, and the (K,) levels of the cached features.

    A third of the unseen images are to fit the probe; `seed` splits them. Their `indices` are rows of the cache.
    """
    stored = torch.load(cache / "images.pt")
    images, members = (stored[name].float() / 127.5 - 1 for name in ("images", "members"))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    fit, heldout = (
        ImageSet(images[rows], stored["labels"][rows], rows)
        for rows in (order[: len(order) // 3].sort().values, order[len(order) // 3 :].sort().values)
    )
    return ProbeSet(ImageSet(members[:num_members]), heldout, fit), stored["sigmas"]


def cached_go(path: Path, plan: Plan, forwards: Go | None = None) -> Go:
    """Runs a pass on cached features; passes of which more is needed than features take the forwards."""
    features = torch.load(path)

    def go(run: Pass) -> Iterator[Batch]:
        role = next(name for name, each in plan.passes.items() if each is run)
        if role not in ("fit", "heldout"):
            yield from forwards(run)
            return
        indices = getattr(plan.probe_set, role).indices[run.noise_ids]
        for rows, labels in zip(indices.split(500), run.labels.split(500), strict=True):
            yield Batch({layer: features[layer][:, rows].float() for layer in plan.layers}, labels, {}, None)

    return go
