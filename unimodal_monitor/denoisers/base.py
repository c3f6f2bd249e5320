"""The contract that hides the zoo of calling conventions: `denoiser(noised, sigma) -> denoised`."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Denoiser(Protocol):
    """Estimates clean data from noised data; everything else about a network stays inside its adapter.

    Source: k-diffusion's denoiser interface; Karras et al. 2022 (arXiv 2206.00364), equation 2.
    """

    @property
    def network(self) -> nn.Module:
        """The module whose submodules are hooked and whose train/eval flags a check switches."""
        ...

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """Denoise.

        Args:
            noised: (N, ...) `clean + sigma * noise` in data units; input scaling happens inside.
            sigma: (N,) standard deviation of the noise, in data units.

        Returns:
            (N, ...) estimate of the clean data, the posterior mean for an ideal network.
        """
        ...

    def snap(self, sigmas: Tensor) -> Tensor:
        """The nearest levels that the schedule can express.

        Args:
            sigmas: (K,) wanted levels, ascending, in data units.

        Returns:
            (K',) ascending and without repeats, K' <= K: levels out of reach are dropped.
        """
        ...
