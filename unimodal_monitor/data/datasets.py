"""Class-balanced draws from whatever a training job has as a dataset."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from unimodal_monitor.data.image_set import ImageSet, check_labels
from unimodal_monitor.data.items import Transform, label_column, read


def draw(dataset: Any, num: int | None, *, transform: Transform | None, seed: int, role: str) -> ImageSet:
    """A class-balanced draw of `num` images without replacement, in the dataset's order; None draws all of them."""
    labels = None
    if is_pair(dataset):
        dataset, labels = dataset[0], None if dataset[1] is None else torch.as_tensor(dataset[1])
    dataset = map_style(dataset, num, role=role)
    size, is_tensor = len(dataset), isinstance(dataset, Tensor)
    if labels is not None:
        check_labels(labels, size)
    num = size if num is None else num
    if not 0 < num <= size:
        raise ValueError(f"num_{role} = {num}, but the {role} dataset has {size} images")
    labels = label_column(dataset) if labels is None else labels
    if labels is None and not is_tensor and num < size:
        # The labels are known only by reading: balance among four times as many images as asked for.
        candidates = np.sort(np.random.default_rng(seed).permutation(size)[: 4 * num])
        found = read(dataset, candidates, transform=transform, role=role)
        return found.take(torch.from_numpy(np.sort(balanced_rows(found.labels, len(found), num, seed=seed))))
    rows = np.sort(balanced_rows(labels, size, num, seed=seed))
    if is_tensor and transform is None:
        drawn = ImageSet(dataset[rows], indices=torch.from_numpy(rows))
    else:
        drawn = read(dataset, rows, transform=transform, role=role)
    return drawn if labels is None or drawn.labels is not None else replace(drawn, labels=labels[rows])


def is_pair(dataset: Any) -> bool:
    """Whether it is (images, labels), tensors of a whole dataset."""
    return isinstance(dataset, tuple | list) and len(dataset) == 2 and isinstance(dataset[0], Tensor)


def map_style(dataset: Any, num: int | None, *, role: str) -> Any:
    """The dataset of a DataLoader, or the first `num` items of a stream, as something with a length and items."""
    dataset = dataset.dataset if isinstance(dataset, DataLoader) else dataset
    if isinstance(dataset, Mapping):
        names = ", ".join(map(repr, dataset))
        raise ValueError(
            f"{role} is a dict of datasets with the splits {names}; give one, ds[{next(iter(dataset), '...')!r}]"
        )
    if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset):
        return dataset
    if isinstance(dataset, str) or not hasattr(dataset, "__iter__"):
        raise ValueError(f"{role} must be a dataset or an iterable of items, got {type(dataset).__name__}")
    if num is None:
        raise ValueError(f"{role} is a stream ({type(dataset).__name__}); give num_{role}=, how many items to take")
    return list(islice(iter(dataset), num))


def balanced_rows(labels: Tensor | None, size: int, num: int, *, seed: int) -> NDArray[np.int64]:
    """(num,) rows in which the classes are as equal in number as they can be; without labels, any rows."""
    order = np.random.default_rng(seed).permutation(size)
    if labels is None:
        return order[:num]
    shuffled, turn = labels.numpy()[order], np.empty(size, dtype=np.int64)
    for label in np.unique(shuffled):
        turn[shuffled == label] = np.arange(np.count_nonzero(shuffled == label))
    return order[np.argsort(turn, kind="stable")[:num]]
