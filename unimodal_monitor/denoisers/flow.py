"""Networks that put out the velocity of a straight path between data and noise: flow matching, rectified flow."""

from typing import Literal

import torch
from torch import Tensor, nn

from unimodal_monitor.denoisers.network import Network, per_image


class FlowDenoiser:
    """`net((1 - t) clean + t noise, time)` where t / (1 - t) = sigma, so the input is `noised / (1 + sigma)`.

    Args:
        network: the call of the job's module.
        noise_at: the time of pure noise. 1: velocity is noise - clean (SD3, Flux, REPA, minRF, MONAI); 0: time runs
            the other way and velocity is clean - noise (SiT, torchcfm, Meta's flow_matching).
        shift: k of networks that are fed the unshifted time u with t = k u / (1 + (k - 1) u). Leave it at 1 for
            networks that are fed t itself, as in diffusers, whatever the shift of the scheduler.
        time_scale: what the network's time is multiplied by, 1 or 1000.

    Raises:
        ValueError: if `noise_at` is neither 0 nor 1, or `shift` or `time_scale` is not positive.

    Source: Lipman et al. 2023 (arXiv 2210.02747); Esser et al. 2024 (arXiv 2403.03206), equation 23, for the shift.
    """

    def __init__(
        self, network: Network, *, noise_at: Literal[0, 1] = 1, shift: float = 1.0, time_scale: float = 1.0
    ) -> None:
        if noise_at not in (0, 1):
            raise ValueError(f"noise_at is {noise_at!r}; the time of pure noise is 0 or 1")
        if not (shift > 0 and time_scale > 0):
            raise ValueError(f"shift and time_scale must be positive, got {shift} and {time_scale}")
        self.call = network
        self.noise_at = noise_at
        self.shift = shift
        self.time_scale = time_scale

    @property
    def network(self) -> nn.Module:
        """The job's module, see `Denoiser`."""
        return self.call.module

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """Denoise, see `Denoiser`."""
        s = sigma.to(noised)
        time = s / (self.shift + s) if self.noise_at == 1 else self.shift / (self.shift + s)
        s = per_image(s, noised)
        velocity = self.call(noised / (1 + s), self.time_scale * time)
        towards_noise = velocity if self.noise_at == 1 else -velocity
        return (noised - s * towards_noise) / (1 + s)

    def snap(self, sigmas: Tensor) -> Tensor:
        """All positive, finite levels: time is continuous."""
        return torch.unique(sigmas[(sigmas > 0) & sigmas.isfinite()])
