"""Networks that predict the velocity of a straight path between data and noise: flow matching, rectified flow."""

from dataclasses import dataclass

from torch import Tensor, nn

from unimodal_monitor.denoisers.path import PathDenoiser


@dataclass(eq=False, repr=False, kw_only=True)
class FlowDenoiser(PathDenoiser):
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

    shift: float = 1.0

    def __post_init__(self, net: nn.Module) -> None:
        super().__post_init__(net)
        if self.shift <= 0:
            raise ValueError(f"shift must be positive, got {self.shift}")

    def _path(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        a, _ = super()._path(sigma)
        time = sigma / (self.shift + sigma) if self.noise_at == 1 else self.shift / (self.shift + sigma)
        return a, time
