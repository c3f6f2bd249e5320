"""Networks that take data units and sigma and return denoised images: EDM, EDM2, k-diffusion."""

import math

import torch
from torch import Tensor, nn

from unimodal_monitor.denoisers.network import Network


class EDMDenoiser:
    """`net(noised, sigma) -> denoised`: every scaling is inside the network.

    Source: Karras et al. 2022 (arXiv 2206.00364), equation 7.
    """

    def __init__(self, network: Network) -> None:
        self.call = network

    @property
    def network(self) -> nn.Module:
        """The job's module, see `Denoiser`."""
        return self.call.module

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """Denoise, see `Denoiser`."""
        return self.call(noised, sigma.to(noised))

    def snap(self, sigmas: Tensor) -> Tensor:
        """The wanted levels from the network's `sigma_min` to its `sigma_max`, where it states them."""
        low, high = self._limit("sigma_min", 0.0), self._limit("sigma_max", math.inf)
        within = (sigmas > 0) & sigmas.isfinite() & (sigmas >= low * (1 - 1e-6)) & (sigmas <= high * (1 + 1e-6))
        return torch.unique(sigmas[within])

    def _limit(self, name: str, default: float) -> float:
        limit = getattr(self.network, name, None)
        is_number = isinstance(limit, int | float) or (isinstance(limit, Tensor) and limit.numel() == 1)
        return float(limit) if is_number and 0 < float(limit) < math.inf else default  # type: ignore[arg-type]
