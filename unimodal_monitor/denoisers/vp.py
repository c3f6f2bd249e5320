"""Networks that take variance-preserving images and an integer timestep: DDPM, LDM, ADM, DiT, lucidrains."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from unimodal_monitor.denoisers.network import Network, per_image

Prediction = Literal["epsilon", "v_prediction", "sample"]
"""What a network of this family puts out: the noise, the velocity of Salimans and Ho, or the clean images."""

ZERO_SNR = 1e-6
"""Below this `alphas_cumprod` (sigma of 1000) a timestep holds no image and is never used."""


class VPDenoiser:
    """`net(noised / sqrt(1 + sigma^2), timestep)`, the timestep being the nearest in log sigma.

    Args:
        network: the call of the job's module.
        alphas_cumprod: (T,) the schedule's, by timestep; a copy is kept, since samplers may change the original.
        prediction: what the network puts out.

    Raises:
        ValueError: if `alphas_cumprod` has not two timesteps with 0 < alphas_cumprod < 1, or on another prediction.

    Source: Ho et al. 2020 (arXiv 2006.11239), equation 4; Salimans and Ho 2022 (arXiv 2202.00512), appendix D, for v.
    """

    def __init__(self, network: Network, *, alphas_cumprod: Tensor, prediction: Prediction = "epsilon") -> None:
        if prediction not in get_args(Prediction):
            raise ValueError(f"prediction is {prediction!r}; it can be {', '.join(get_args(Prediction))}")
        self.call = network
        self.alphas_cumprod = alphas_cumprod.detach().to("cpu", torch.float64, copy=True)
        self.prediction = prediction
        is_usable = (self.alphas_cumprod >= ZERO_SNR) & (self.alphas_cumprod < 1)
        if self.alphas_cumprod.ndim != 1 or is_usable.sum() < 2:
            raise ValueError(
                f"alphas_cumprod is of shape {tuple(alphas_cumprod.shape)} with {int(is_usable.sum())} values between"
                f" 0 and 1; a schedule of two timesteps or more would do"
            )
        self._timesteps = is_usable.nonzero().flatten()
        usable = self.alphas_cumprod[is_usable]
        self._sigmas = ((1 - usable) / usable).sqrt()

    @property
    def network(self) -> nn.Module:
        """The job's module, see `Denoiser`."""
        return self.call.module

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """Denoise, see `Denoiser`."""
        timesteps = self._timesteps.to(noised.device)[self._nearest(sigma.to(noised.device))]
        s = per_image(sigma, noised)
        scale = (1 + s**2).rsqrt()
        prediction = self.call(noised * scale, timesteps)
        if self.prediction == "epsilon":
            return noised - s * prediction
        if self.prediction == "v_prediction":
            return scale**2 * noised - s * scale * prediction
        return prediction

    def snap(self, sigmas: Tensor) -> Tensor:
        """The nearest timesteps' levels.

        Levels below the lowest timestep become that one; levels above the highest by more than a step are dropped.
        """
        highest = self._sigmas.topk(2).values
        reachable = sigmas[(sigmas > 0) & (sigmas <= highest[0] ** 2 / highest[1])]
        return torch.unique(self._sigmas[self._nearest(reachable).cpu()]).to(sigmas)

    def _nearest(self, sigmas: Tensor) -> Tensor:
        """(N,) for each level the place of the nearest timestep in `_timesteps` and `_sigmas`."""
        known = self._sigmas.to(sigmas).log()
        return (sigmas.log()[:, None] - known).abs().argmin(dim=1)
