"""Networks that take variance-preserving images and an integer timestep: DDPM, LDM, ADM, DiT, lucidrains."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from unimodal_monitor.denoisers.network import NetworkDenoiser, per_image

Prediction = Literal["epsilon", "v_prediction", "sample"]  # the noise, the velocity of Salimans and Ho, clean images

ZERO_SNR = 1e-6  # timesteps with `alphas_cumprod` below this (sigma of 1000) contain no image and are not used


@dataclass(eq=False, repr=False, kw_only=True)
class VPDenoiser(NetworkDenoiser):
    """`net(noised / sqrt(1 + sigma^2), timestep)` with the timestep that is nearest in log sigma.

    Args:
        alphas_cumprod: (T,) cumulated alphas of the schedule, at least two of them between 0 and 1; copied, because
            samplers may change the original.
        prediction: What the network predicts.
        times: (T,) times that the network gets, where they are not 0 to T - 1: respaced or rescaled ones.
        weights, condition: Averaged tensors by the network's names; keyword arguments of every call.

    Source: Ho et al. 2020 (arXiv 2006.11239), equation 4; Salimans and Ho 2022 (arXiv 2202.00512), appendix D, for v.

    >>> alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    >>> VPDenoiser(nn.Identity(), alphas_cumprod=alphas_cumprod).snap(torch.tensor([0.001, 1.0, 1000.0]))
    tensor([0.0100, 0.9995])
    """

    alphas_cumprod: Tensor
    prediction: Prediction = "epsilon"
    times: Tensor | None = None

    def __post_init__(self, net: nn.Module) -> None:
        super().__post_init__(net)
        if self.prediction not in get_args(Prediction):
            raise ValueError(f"prediction is {self.prediction!r}; need one of {', '.join(get_args(Prediction))}")
        self.alphas_cumprod = self.alphas_cumprod.detach().to("cpu", torch.float64, copy=True)
        is_usable = (self.alphas_cumprod >= ZERO_SNR) & (self.alphas_cumprod < 1)
        shape, num_usable = tuple(self.alphas_cumprod.shape), int(is_usable.sum())
        if len(shape) != 1 or num_usable < 2:
            raise ValueError(f"alphas_cumprod of shape {shape} has {num_usable} values in (0, 1); need (T,), 2 or more")
        if self.times is not None and self.times.shape != self.alphas_cumprod.shape:
            raise ValueError(
                f"times are of shape {tuple(self.times.shape)}; need one for each of {shape} alphas_cumprod"
            )
        steps = is_usable.nonzero().flatten()
        self._timesteps = steps if self.times is None else self.times.detach().cpu()[steps]
        usable = self.alphas_cumprod[is_usable]
        self._sigmas = ((1 - usable) / usable).sqrt()

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """Denoise, see `Denoiser`."""
        timesteps = self._timesteps.to(noised.device)[self._nearest(sigma.to(noised.device))]
        s = per_image(sigma, noised)
        scale = (1 + s**2).rsqrt()
        prediction = self.predict(noised * scale, timesteps.float() if timesteps.is_floating_point() else timesteps)
        if self.prediction == "epsilon":
            return noised - s * prediction
        if self.prediction == "v_prediction":
            return scale**2 * noised - s * scale * prediction
        return prediction

    def snap(self, sigmas: Tensor) -> Tensor:
        """The levels of the nearest timesteps; levels above the highest by more than a step are dropped."""
        highest = self._sigmas.topk(2).values
        reachable = sigmas[(sigmas > 0) & (sigmas <= highest[0] ** 2 / highest[1])]
        return super().snap(self._sigmas[self._nearest(reachable).cpu()]).to(sigmas)

    def _nearest(self, sigmas: Tensor) -> Tensor:
        """(N,) index into `_timesteps` and `_sigmas` of the nearest timestep."""
        known, order = self._sigmas.to(sigmas).log().sort()
        log_sigmas = sigmas.log()
        right = torch.searchsorted(known, log_sigmas).clamp(1, len(known) - 1)
        is_left = log_sigmas - known[right - 1] <= known[right] - log_sigmas
        return order[right - is_left.long()]
