"""Networks that predict the velocity of a straight path between data and noise: flow matching, rectified flow."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from unimodal_monitor.denoisers.network import NetworkDenoiser, per_image


@dataclass(eq=False, repr=False, kw_only=True)
class FlowDenoiser(NetworkDenoiser):
    """`net((1 - t) clean + t noise, time)` with t / (1 - t) = sigma, so that the input is `noised / (1 + sigma)`.

    Args:
        noise_at: Time of pure noise. 1: velocity is noise - clean (SD3, Flux, REPA, minRF, MONAI). 0: time runs the
            other way and velocity is clean - noise (SiT, torchcfm, Meta's flow_matching).
        shift: Constant k of networks that take the unshifted time u with t = k u / (1 + (k - 1) u). Leave it at 1 for
            networks that take t itself, as in diffusers, whatever the shift of the scheduler.
        time_scale: Factor of the network's time, 1 or 1000.
        velocity_to: Where the velocity points, "noise" or "data"; None for where time goes. MONAI's RFlowScheduler has
            pure noise at the highest time and the velocity clean - noise.
        weights, condition: Averaged tensors by the network's names; keyword arguments of every call.

    Source: Lipman et al. 2023 (arXiv 2210.02747); Esser et al. 2024 (arXiv 2403.03206), equation 23, for the shift.

    >>> import torch
    >>> class Velocity(torch.nn.Module):
    ...     def forward(self, x, t):  # exact where all clean images are zero
    ...         return x / t.view(-1, 1)
    >>> FlowDenoiser(Velocity())(torch.ones(1, 2), torch.ones(1))
    tensor([[0., 0.]])
    """

    noise_at: Literal[0, 1] = 1
    shift: float = 1.0
    time_scale: float = 1.0
    velocity_to: Literal["noise", "data"] | None = None

    def __post_init__(self, net: nn.Module) -> None:
        super().__post_init__(net)
        if self.noise_at not in (0, 1):
            raise ValueError(f"noise_at is {self.noise_at!r}; need 0 or 1, the time of pure noise")
        if self.velocity_to not in (None, "noise", "data"):
            raise ValueError(f"velocity_to is {self.velocity_to!r}; need 'noise', 'data' or None")
        if not (self.shift > 0 and self.time_scale > 0):
            raise ValueError(f"shift and time_scale must be positive, got {self.shift} and {self.time_scale}")

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """Denoise, see `Denoiser`."""
        s = sigma.to(noised)
        time = s / (self.shift + s) if self.noise_at == 1 else self.shift / (self.shift + s)
        s = per_image(s, noised)
        velocity = self.predict(noised / (1 + s), self.time_scale * time)
        is_to_noise = self.noise_at == 1 if self.velocity_to is None else self.velocity_to == "noise"
        towards_noise = velocity if is_to_noise else -velocity
        return (noised - s * towards_noise) / (1 + s)
