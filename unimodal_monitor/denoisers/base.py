"""The contract that hides every calling convention: `denoiser(noised, sigma) -> denoised`."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Denoiser(ABC):
    """Estimates clean data from noised data. Input scaling, time, condition and precision stay inside.

    A subclass sets `network`, the module whose submodules are hooked and whose train/eval flags a check switches, and
    defines `__call__`; `as_denoiser` makes one of a function. Source: Karras et al. 2022 (arXiv 2206.00364), eq. 2.

    >>> class Shrink(Denoiser):
    ...     network = nn.Identity()
    ...     def __call__(self, noised, sigma):
    ...         return noised / (1 + sigma.view(-1, 1) ** 2)
    >>> Shrink()(torch.ones(1, 2), torch.ones(1))
    tensor([[0.5000, 0.5000]])
    >>> Shrink().snap(torch.tensor([2.0, 1.0, 2.0, torch.inf]))
    tensor([1., 2.])
    """

    network: nn.Module

    @abstractmethod
    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """(N, ...) estimate of the clean data, the posterior mean for an ideal network.

        `noised` (N, ...) is `clean + sigma * noise`, and `sigma` (N,) the standard deviation of it, in data units.
        """

    def snap(self, sigmas: Tensor) -> Tensor:
        """The levels that the schedule can express, (K',), nearest to the requested ones, `sigmas` (K,).

        They ascend without repeats; levels out of reach are dropped. By default all positive and finite ones.
        """
        levels: Tensor = torch.unique(sigmas[(sigmas > 0) & sigmas.isfinite()])
        return levels

    @property
    def weights_used(self) -> Literal["ema", "raw"]:
        """The weights that a call would use now."""
        return "raw"

    def holding_weights(self) -> AbstractContextManager[None]:
        """Read averaged weights once for all calls in the block, in which no training step is made."""
        return nullcontext()


def as_denoiser(denoiser: Callable[[Tensor, Tensor], Tensor], *, net: nn.Module | None = None) -> Denoiser:
    """A `Denoiser` as it is; any other callable `(noised, sigma) -> denoised` with `net`, the network that it calls.

    An `nn.Module` that is called so needs no `net`; a ValueError otherwise.
    """
    if isinstance(denoiser, Denoiser):
        return denoiser
    if not callable(denoiser):
        raise ValueError(f"denoiser is of type {type(denoiser).__name__}; need a callable (noised, sigma) -> denoised")
    function = unwrap(denoiser) if isinstance(denoiser, nn.Module) else denoiser
    network = function if net is None else net
    if not isinstance(network, nn.Module):
        given = "is missing" if net is None else f"is of type {type(net).__name__}"
        raise ValueError(f"net {given}; a plain function needs net=, the nn.Module that it calls")
    return _Function(function, unwrap(network))


@dataclass(eq=False, repr=False)
class _Function(Denoiser):
    function: Callable[[Tensor, Tensor], Tensor]
    network: nn.Module

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        return self.function(noised, sigma.to(noised))


def device_of(network: nn.Module) -> torch.device:
    """Device of its parameters, or else of its buffers; the CPU without either."""
    return next((tensor.device for tensor in chain(network.parameters(), network.buffers())), torch.device("cpu"))


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside the wrappers of torch.compile and DistributedDataParallel."""
    inner = module.module if isinstance(module, DistributedDataParallel) else getattr(module, "_orig_mod", None)
    return unwrap(inner) if isinstance(inner, nn.Module) else module
