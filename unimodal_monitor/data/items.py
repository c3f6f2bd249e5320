"""Items of a dataset: images and labels in the usual forms, and errors that name the item."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unimodal_monitor.data.image_set import ImageSet

NUM_READ_AGAIN = 8  # items that are read twice, to tell whether the dataset augments them at random
BATCH = 64  # images that a transform with the module gets at once
IMAGE_KEYS = ("image", "pixel_values", "jpg", "input", "img", "images", "x")
LABEL_KEYS = ("label", "labels", "cls", "y", "fine_label", "class", "target")


class Transform:
    """The user's function from what a dataset yields as image to model space, without gradients.

    `function(image)` gets one image; `function(images, module)` gets a batch (N, ...) on the module's device, such as
    for a VAE in it.
    """

    def __init__(self, function: Callable[..., Any], module: nn.Module | None = None) -> None:
        if not callable(function):
            raise ValueError(f"transform is of type {type(function).__name__}; need a function of an image")
        self.function, self.module, self.takes_module = function, module, _num_required(function) == 2
        if self.takes_module and module is None:
            raise ValueError("transform takes two arguments, (images, module), but there is no module; give module=")

    def of_item(self, image: Any) -> Tensor:
        """The image, transformed by a function of one image."""
        if self.takes_module:
            return _as_image(image)
        result = _as_image(self.function(image))
        if result.ndim == 4 and len(result) == 1 and getattr(image, "ndim", 3) < 4:
            raise ValueError(f"the transform gave {tuple(result.shape)} for one image; give its [0]")
        return result

    def of_batch(self, images: Tensor) -> Tensor:
        """(N, ...) images, transformed by a function of a batch and the module."""
        if not self.takes_module or self.module is None:
            return images
        device, parts = next((p.device for p in self.module.parameters()), images.device), []
        for batch in torch.split(images, BATCH):
            with torch.no_grad():
                result = self.function(batch.to(device), self.module)
            if not isinstance(result, Tensor) or len(result) != len(batch):
                what = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
                raise ValueError(f"the transform gave {what} for {len(batch)} images; need a tensor (N, ...) of them")
            parts.append(result.float().cpu())
        return torch.cat(parts)


def _num_required(function: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin
        return 1
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


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


def read(dataset: Any, rows: NDArray[np.int64], *, transform: Transform | None, role: str) -> ImageSet:
    """The items of these rows; the ValueError of one that cannot be read or understood names the item."""
    images, labels = [], []
    read_again = rows[:NUM_READ_AGAIN].tolist()
    for row in [*rows.tolist(), *read_again]:
        try:
            image, label = split_item(dataset[row])
            with torch.no_grad():
                images.append(_as_image(image) if transform is None else transform.of_item(image))
            labels.append(_as_class(label))
        except Exception as error:
            raise ValueError(f"item {row} of {role}: {type(error).__name__}: {error}") from error
    again, images, labels = images[len(rows) :], images[: len(rows)], labels[: len(rows)]
    varies = any(not torch.equal(first, second) for first, second in zip(images, again, strict=False))
    if len(shapes := {tuple(image.shape) for image in images}) > 1:
        raise ValueError(f"the images of {role} differ in shape: {sorted(shapes)[:3]}; give a `transform`")
    known = [label for label in labels if label is not None]
    if known and len(known) < len(labels):
        raise ValueError(f"{len(labels) - len(known)} of {len(labels)} images of {role} have no label")
    stacked = torch.stack(images) if transform is None else transform.of_batch(torch.stack(images))
    return ImageSet(stacked, torch.stack(known) if known else None, torch.from_numpy(rows), varies)


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
    texts = label if isinstance(label, list | tuple) and label else [label]
    if label is None or all(isinstance(text, str | bytes) for text in texts):  # captions are no classes
        return None
    value = torch.as_tensor(label)
    if value.numel() != 1:
        raise ValueError(f"its label must be one integer, got {value.dtype} of shape {tuple(value.shape)}")
    return value.squeeze()
