"""Networks that take data units and sigma and return denoised images: EDM, EDM2, k-diffusion."""

import math

from torch import Tensor

from unimodal_monitor.denoisers.network import NetworkDenoiser


class EDMDenoiser(NetworkDenoiser):
    """`net(noised, sigma) -> denoised`: every scaling is inside the network.

    Args:
        net: Network; if it has `sigma_min` and `sigma_max`, levels outside are not used.
        weights, condition: Averaged tensors by the network's names; keyword arguments of every call.

    Source: Karras et al. 2022 (arXiv 2206.00364), equation 7.

    >>> import torch
    >>> class Shrink(torch.nn.Module):
    ...     def forward(self, x, sigma):
    ...         return x / (1 + sigma.view(-1, 1) ** 2)
    >>> EDMDenoiser(Shrink())(torch.ones(1, 2), torch.ones(1))
    tensor([[0.5000, 0.5000]])
    """

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """Denoise, see `Denoiser`."""
        return self.predict(noised, sigma.to(noised))

    def snap(self, sigmas: Tensor) -> Tensor:
        """The requested levels from the network's `sigma_min` to its `sigma_max`, if it has them."""
        low, high = self._limit("sigma_min", 0.0), self._limit("sigma_max", math.inf)
        return super().snap(sigmas[(sigmas >= low * (1 - 1e-6)) & (sigmas <= high * (1 + 1e-6))])

    def _limit(self, name: str, default: float) -> float:
        limit = getattr(self.network, name, None)
        is_number = isinstance(limit, int | float) or (isinstance(limit, Tensor) and limit.numel() == 1)
        return float(limit) if is_number and 0 < float(limit) < math.inf else default  # type: ignore[arg-type]
