"""Draw class-balanced subsets of whatever a training job has as a dataset."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unimodal_monitor.data.image_set import ImageSet, check_labels

IMAGE_KEYS = ("image", "pixel_values", "jpg", "input", "img", "images", "x")
LABEL_KEYS = ("label", "labels", "cls", "y", "fine_label", "class", "target")


def draw(dataset: Any, num: int | None, *, transform: Callable[[Any], Tensor] | None, seed: int, role: str) -> ImageSet:
    """A class-balanced draw of `num` images without replacement, in the dataset's order.

    Raises:
        ValueError: if the dataset has fewer than `num` images, or none at all.
    """
    images, labels = _as_tensors(dataset)
    size = len(images if images is not None else dataset)
    num = size if num is None else num
    if not 0 < num <= size:
        raise ValueError(f"num_{role} = {num}, but the {role} dataset has {size} images")
    if images is None and labels is None and num < size:
        labels = label_column(dataset)
        if labels is None:
            return _draw_by_scanning(dataset, num, size, transform=transform, seed=seed)
    rows = np.sort(balanced_rows(labels, size, num, seed=seed))
    if images is None:
        return _read(dataset, rows, transform)
    picked = images[torch.from_numpy(rows)]
    if transform is not None:
        picked = torch.stack([_as_image(transform(image)) for image in picked])
    return ImageSet(picked, None if labels is None else labels[torch.from_numpy(rows)], torch.from_numpy(rows))


def balanced_rows(labels: Tensor | None, size: int, num: int, *, seed: int) -> np.ndarray:
    """(num,) rows in which the classes are as equal in number as they can be; without labels, any rows."""
    order = np.random.default_rng(seed).permutation(size)
    if labels is None:
        return order[:num]
    _, classes = np.unique(labels.numpy()[order], return_inverse=True)
    turn = np.empty(size, dtype=np.int64)
    for label in range(classes.max() + 1):
        of_class = np.flatnonzero(classes == label)
        turn[of_class] = np.arange(len(of_class))
    return order[np.argsort(turn, kind="stable")[:num]]


def label_column(dataset: Any) -> Tensor | None:
    """All labels without reading an image, where the dataset keeps them as a column; None otherwise."""
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        inner = label_column(dataset.dataset)
        return None if inner is None else inner[torch.as_tensor(dataset.indices)]
    if hasattr(dataset, "column_names"):
        key = next((key for key in LABEL_KEYS if key in dataset.column_names), None)
        return None if key is None else torch.as_tensor(np.asarray(dataset[key]))
    targets = getattr(dataset, "targets", None)
    return None if targets is None or len(targets) != len(dataset) else torch.as_tensor(targets)


def _draw_by_scanning(dataset: Any, num: int, size: int, *, transform: Any, seed: int) -> ImageSet:
    """Balance among four times as many images as asked for: the labels are known only by reading."""
    candidates = np.sort(np.random.default_rng(seed).permutation(size)[: 4 * num])
    read = _read(dataset, candidates, transform)
    return read.take(torch.from_numpy(np.sort(balanced_rows(read.labels, len(read), num, seed=seed))))


def _read(dataset: Any, rows: np.ndarray, transform: Callable[[Any], Tensor] | None) -> ImageSet:
    images, labels = [], []
    for row in rows:
        image, label = split_item(dataset[int(row)])
        images.append(_as_image(image if transform is None else transform(image)))
        labels.append(label)
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise ValueError(f"the images of a dataset differ in shape: {sorted(shapes)[:3]}; give a `transform`")
    return ImageSet(torch.stack(images), _stack_labels(labels), torch.from_numpy(rows))


def _as_image(image: Any) -> Tensor:
    try:
        return torch.as_tensor(image)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"an image is a {type(image).__name__}; give a `transform` from it to a tensor in model space"
        ) from error


def split_item(item: Any) -> tuple[Any, Any]:
    """(image, label or None) of what a dataset yields.

    Raises:
        ValueError: if a dict has none of the usual keys.
    """
    if isinstance(item, Mapping):
        key = next((key for key in IMAGE_KEYS if key in item), None)
        if key is None:
            raise ValueError(f"an item has the keys {sorted(map(str, item))}, none of {', '.join(IMAGE_KEYS)}")
        return item[key], next((item[key] for key in LABEL_KEYS if key in item), None)
    if isinstance(item, Sequence) and not isinstance(item, str):
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _as_tensors(dataset: Any) -> tuple[Tensor | None, Tensor | None]:
    """(images, labels) of a tensor or of a pair of tensors; (None, None) for a dataset."""
    if isinstance(dataset, Tensor):
        return dataset, None
    if isinstance(dataset, tuple | list) and len(dataset) == 2 and isinstance(dataset[0], Tensor):
        labels = None if dataset[1] is None else torch.as_tensor(dataset[1])
        if labels is not None:
            check_labels(labels, len(dataset[0]))
        return dataset[0], labels
    return None, None


def _stack_labels(labels: list[Any]) -> Tensor | None:
    missing = sum(label is None for label in labels)
    if missing == len(labels):
        return None
    if missing:
        raise ValueError(f"{missing} of {len(labels)} images have no label")
    return torch.stack([torch.as_tensor(label).squeeze() for label in labels])
