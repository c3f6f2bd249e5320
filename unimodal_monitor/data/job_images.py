"""The probe images of a job: drawn from its own datasets, as many as are useful and fit into memory."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.data import IterableDataset

from unimodal_monitor.data.datasets import draw, is_pair, map_style
from unimodal_monitor.data.items import Transform
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.forward.isolation import evaluating, private_rng

MAX_MEMBERS, MAX_HELDOUT = 4096, 10_000
MAX_BYTES = 2**31  # of all images together


def draw_probe_set(
    members: Any,
    heldout: Any,
    *,
    num_members: int | None = None,
    num_heldout: int | None = None,
    transform: Callable[..., Any] | None = None,
    module: nn.Module | None = None,
    seed: int = 0,
) -> ProbeSet:
    """`ProbeSet.from_datasets`, by default with up to 4,096 members and 10,000 held-out images, of 2 GiB together.

    >>> images, labels = torch.randn(90, 3, 4, 4), torch.arange(90) % 3
    >>> len(draw_probe_set((images[:30], labels[:30]), (images[30:], labels[30:])).members)
    30
    """
    with private_rng(seed):  # a stream may shuffle
        datasets = [
            dataset if is_pair(dataset) else map_style(dataset, most if num is None else num, role=role)
            for dataset, num, most, role in (
                (members, num_members, MAX_MEMBERS, "members"),
                (heldout, num_heldout, MAX_HELDOUT, "heldout"),
            )
        ]
    sizes = [len(dataset[0]) if is_pair(dataset) else len(dataset) for dataset in datasets]
    nums = [min(sizes[0], MAX_MEMBERS), min(sizes[1], MAX_HELDOUT)]
    if min(sizes) and None in (num_members, num_heldout):
        change = None if transform is None else Transform(transform, module)
        with private_rng(seed), nullcontext() if module is None else evaluating(module):
            image = draw(_first(datasets[0]), 1, transform=change, seed=seed, role="members").images
        share = min(1.0, MAX_BYTES / (sum(nums) * image.numel() * image.element_size()))
        nums = [max(1, int(share * num)) for num in nums]
    wanted = [num if given is None else given for num, given in zip(nums, (num_members, num_heldout), strict=True)]
    return ProbeSet.from_datasets(
        *datasets,
        num_members=wanted[0],
        num_heldout=wanted[1],
        transform=transform,
        module=module,
        seed=seed,
    )


def draw_probe_set_of(trainer: Any, module: nn.Module, *, members: Any, heldout: Any, **options: Any) -> ProbeSet:
    """`draw_probe_set`; datasets that are None are those of a Lightning trainer's own dataloaders."""
    if members is None:
        members = dataset_of(trainer.train_dataloader, role="members")
    if heldout is None:  # not loaded before the first epoch that validates
        source = trainer.fit_loop.epoch_loop.val_loop._data_source
        loader = trainer.val_dataloaders
        if loader is None and source.is_defined():
            loader = source.dataloader()
        heldout = dataset_of(loader, role="heldout")
    return draw_probe_set(members, heldout, module=module, **options)


def dataset_of(loader: Any, *, role: str) -> Any:
    """The dataset of a job's dataloader, which must be one; of a stream a copy, so that the job misses no item."""
    loader = loader[0] if isinstance(loader, list | tuple) and len(loader) == 1 else loader
    dataset = getattr(loader, "dataset", None)
    if dataset is None:
        which = "training" if role == "members" else "validation"
        has = "is missing" if loader is None else f"is a {type(loader).__name__} without one dataset"
        raise ValueError(f"{role}: the {which} dataloader {has}; give {role}= a dataset, or probe_set=")
    if not isinstance(dataset, IterableDataset):
        return dataset
    try:
        return copy.deepcopy(dataset)
    except Exception as error:  # such as a generator or an open file inside
        kind = type(dataset).__name__
        raise ValueError(
            f"{role}: the job's {kind} cannot be copied, and reading it would take its items; give {role}="
        ) from error


def _first(dataset: Any) -> Any:
    return dataset[0][:1] if is_pair(dataset) else torch.utils.data.Subset(dataset, [0])
