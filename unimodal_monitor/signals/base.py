"""Signal: a torchmetrics Metric that keeps values image by image, the same for any batches, order and ranks."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat


class Signal(Metric):
    """Values of images, filed under a role and under the image's number within it.

    States are flat and of one type, so that torchmetrics can gather shards of any size, empty ones included.
    An image that comes again, as another noise draw or as a sampler's padding, counts once, with the average.

    Args:
        num_levels: K.
        roles: what is kept apart, such as members and held-out images.
    """

    full_state_update = False

    def __init__(self, num_levels: int, *, roles: tuple[str, ...]) -> None:
        super().__init__()
        if num_levels < 1:
            raise ValueError(f"num_levels = {num_levels}; it is a count, from 1")
        self.num_levels = num_levels
        for role in roles:
            self.add_state(f"{role}_values", [], dist_reduce_fx="cat")
            self.add_state(f"{role}_indices", [], dist_reduce_fx="cat")
        self.set_dtype(torch.float64)

    def _keep(self, role: str, values: Tensor, indices_N: Tensor) -> None:
        """File (K, N, ...) values of images under their (N,) numbers.

        Raises:
            ValueError: if the shapes do not fit.
        """
        if values.ndim < 2 or values.shape[:2] != (self.num_levels, len(indices_N)):
            raise ValueError(
                f"values must have shape ({self.num_levels}, {len(indices_N)}, ...), levels and images first, "
                f"got {tuple(values.shape)}"
            )
        getattr(self, f"{role}_values").append(values.detach().transpose(0, 1).double().flatten())
        getattr(self, f"{role}_indices").append(indices_N.detach().to(values.device).double())

    def _kept(self, role: str) -> tuple[Tensor, Tensor]:
        """(K, N, W) values in ascending order of the images' (N,) numbers, on the CPU; W = 1 for single figures.

        Raises:
            FloatingPointError: if a value is not finite.
            ValueError: if there are fewer than two images.
        """
        parts = [getattr(self, f"{role}_{part}") for part in ("values", "indices")]
        flat, indices = (dim_zero_cat(part).cpu() if len(part) else torch.zeros(0) for part in parts)
        numbers_N, row = indices.long().unique(return_inverse=True)
        if len(numbers_N) < 2:
            raise ValueError(f"{self.__class__.__name__} needs two images or more of {role!r}, got {len(numbers_N)}")
        if not flat.isfinite().all():
            raise FloatingPointError(
                f"{self.__class__.__name__} of {role!r} got {int((~flat.isfinite()).sum())} values not finite"
            )
        values = flat.view(len(indices), -1)
        sums = torch.zeros(len(numbers_N), values.shape[1], dtype=torch.float64).index_add_(0, row, values)
        means = sums / row.bincount().unsqueeze(1)
        return means.view(len(numbers_N), self.num_levels, -1).transpose(0, 1), numbers_N

    def _wrap_compute(self, compute: Callable) -> Callable:
        """Hide results from torchmetrics, which takes dataclasses apart and squeezes the tensors of a single level."""
        boxed = super()._wrap_compute(wraps(compute)(lambda: _Box(compute())))
        return wraps(compute)(lambda: boxed().result)


class _Box:
    def __init__(self, result: Any) -> None:
        self.result = result


def as_lists(record: dict[str, Any]) -> dict[str, Any]:
    """The record with its tensors as nested lists: primitives only."""
    return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in record.items()}
