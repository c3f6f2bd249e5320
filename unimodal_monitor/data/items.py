"""Items of a dataset: images and labels in the usual forms, and errors that name the item."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unimodal_monitor.data.image_set import ImageSet

IMAGE_KEYS = ("image", "pixel_values", "jpg", "input", "img", "images", "x")
LABEL_KEYS = ("label", "labels", "cls", "y", "fine_label", "class", "target")


def label_column(dataset: Any) -> Tensor | None:
    """All labels without reading an image, where the dataset keeps them as numbers; None otherwise."""
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        inner = label_column(dataset.dataset)
        return None if inner is None else inner[torch.as_tensor(dataset.indices)]
    column = getattr(dataset, "targets", None)
    if hasattr(dataset, "column_names"):
        plain = dataset.with_format(None) if hasattr(dataset, "with_format") else dataset
        column = next((plain[key] for key in LABEL_KEYS if key in dataset.column_names), None)
    values = np.asarray(() if column is None else column)
    is_column = values.shape == (len(dataset),) and values.dtype.kind in "biuf"
    return torch.as_tensor(values) if is_column else None


def read(dataset: Any, rows: NDArray[np.int64], *, transform: Callable[[Any], Tensor] | None, role: str) -> ImageSet:
    """The items of these rows; the ValueError of one that cannot be read or understood names the item."""
    images, labels = [], []
    for row in rows.tolist():
        try:
            image, label = split_item(dataset[row])
            with torch.no_grad():
                images.append(_as_image(image if transform is None else transform(image)))
            labels.append(_as_class(label))
        except Exception as error:
            raise ValueError(f"item {row} of {role}: {type(error).__name__}: {error}") from error
    if len(shapes := {tuple(image.shape) for image in images}) > 1:
        raise ValueError(f"the images of {role} differ in shape: {sorted(shapes)[:3]}; give a `transform`")
    known = [label for label in labels if label is not None]
    if known and len(known) < len(labels):
        raise ValueError(f"{len(labels) - len(known)} of {len(labels)} images of {role} have no label")
    return ImageSet(torch.stack(images), torch.stack(known) if known else None, torch.from_numpy(rows))


def split_item(item: Any) -> tuple[Any, Any]:
    """(image, label or None) of what a dataset yields; a dict must have one of the usual keys."""
    if isinstance(item, Mapping):
        key = next((key for key in IMAGE_KEYS if key in item), None)
        if key is None:
            raise ValueError(f"it has the keys {sorted(map(str, item))}, none of {', '.join(IMAGE_KEYS)}")
        return item[key], next((item[key] for key in LABEL_KEYS if key in item), None)
    if isinstance(item, Sequence) and not isinstance(item, str):
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _as_image(image: Any) -> Tensor:
    if isinstance(image, tuple):
        raise ValueError(f"its image is a tuple of {len(image)}; did you forget [0]?")
    try:
        return torch.as_tensor(image)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(image).__name__
        raise ValueError(
            f"its image is of type {kind}; give a `transform` from it to a tensor in model space"
        ) from error


def _as_class(label: Any) -> Tensor | None:
    if label is None:
        return None
    if isinstance(label, str | bytes):
        raise ValueError(f"its label is a text, {label!r:.50}; give integer classes, or images without labels")
    value = torch.as_tensor(label)
    if value.numel() != 1:
        raise ValueError(f"its label must be one integer, got {value.dtype} of shape {tuple(value.shape)}")
    return value.squeeze()
