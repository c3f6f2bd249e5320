"""Networks trained on a continuous path from data to noise: flows, score SDEs, EDM's inner network."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from unimodal_monitor.denoisers.network import NetworkDenoiser, per_image

Path = Literal["flow", "cosine", "vpsde", "subvp", "ve", "edm"]
PathPrediction = Literal["velocity", "epsilon", "sample", "v_prediction", "score"]
PATHS, PATH_PREDICTIONS = get_args(Path), get_args(PathPrediction)
BETAS = (0.1, 20.0)  # of the variance-preserving SDE


@dataclass(eq=False, repr=False)
class PathDenoiser(NetworkDenoiser):
    """`net(a(t) clean + s(t) noise, time_scale * t)` on one of the field's continuous paths.

    Args:
        net: Network that is called with a path's images and its times.
        path: "flow" a = 1 - t, s = t; "cosine" a = cos(pi t / 2), s = sin(pi t / 2); "vpsde" and "subvp" of
            score_sde, beta from 0.1 to 20; "ve" a = 1 and s = t = sigma; "edm" the network inside EDM's
            preconditioning, which gets c_in (clean + sigma noise) and ln(sigma) / 4.
        prediction: What the network predicts; "velocity" is the path's derivative, "score" is -noise / s, and None is
            the path's own: the velocity for flow and cosine, EDM's F for edm, the noise for vpsde and subvp, the
            score for ve.
        noise_at: Time of pure noise, 1, or 0 where time 1 is data; for flow and cosine.
        velocity_to: Where the velocity points, "noise" or "data"; None for where time goes.
        time_scale: Factor of the network's time.
        std: Standard deviation of the data, EDM's sigma_data.
        log_time: Whether a "ve" network gets ln(sigma).
        weights, condition: Averaged tensors by the network's names; keyword arguments of every call.

    Source: Karras et al. 2022 (arXiv 2206.00364), table 1, for edm; Song et al. 2021 (arXiv 2011.13456), appendix B,
    for the SDEs; Ma et al. 2024 (arXiv 2401.08740) for cosine.

    >>> class Zero(nn.Module):
    ...     def forward(self, x, t):
    ...         return 0 * x
    >>> PathDenoiser(Zero(), path="cosine")(torch.ones(1, 2), torch.ones(1))
    tensor([[0.5000, 0.5000]])
    """

    _: KW_ONLY
    path: Path = "flow"
    prediction: PathPrediction | None = None
    noise_at: Literal[0, 1] = 1
    velocity_to: Literal["noise", "data"] | None = None
    time_scale: float = 1.0
    std: float = 0.5
    log_time: bool = False

    def __post_init__(self, net: nn.Module) -> None:
        super().__post_init__(net)
        if self.path not in PATHS or self.prediction not in (None, *PATH_PREDICTIONS):
            raise ValueError(
                f"path = {self.path!r}, prediction = {self.prediction!r}; need one of {', '.join(PATHS)}"
                f" and one of {', '.join(PATH_PREDICTIONS)}"
            )
        if self.noise_at not in (0, 1):
            raise ValueError(f"noise_at is {self.noise_at!r}; need 0 or 1, the time of pure noise")
        if self.path not in ("flow", "cosine") and (self.noise_at == 0 or self.prediction == "velocity"):
            raise ValueError(
                f"path = {self.path!r} has neither noise_at=0 nor a velocity; those of flow and cosine have"
            )
        if self.velocity_to not in (None, "noise", "data"):
            raise ValueError(f"velocity_to is {self.velocity_to!r}; need 'noise', 'data' or None")
        if not (self.time_scale > 0 and self.std > 0):
            raise ValueError(f"time_scale and std must be positive, got {self.time_scale} and {self.std}")

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """Denoise, see `Denoiser`."""
        scale = self.std if self.path == "edm" else 1.0
        sigma = sigma.to(noised) / scale
        a, time = self._path(sigma)
        s = a * sigma
        p, q = self._target(a, s)
        output = self.predict(noised / scale * per_image(a, noised), self.time_scale * time)
        sigma, p, q = (per_image(values, noised) for values in (sigma, p, q))
        return (q * noised - sigma * scale * output) / (q - sigma * p)

    def _path(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Factor of the clean image and time, at s / a = sigma in units of the data."""
        a: Tensor = (1 + sigma**2).rsqrt()
        if self.path in ("flow", "cosine"):
            time = sigma / (1 + sigma) if self.path == "flow" else 2 / math.pi * sigma.atan()
            a = 1 / (1 + sigma) if self.path == "flow" else a
            return a, time if self.noise_at == 1 else 1 - time
        if self.path == "edm":
            return a, (self.std * sigma).log() / 4
        if self.path == "ve":
            return torch.ones_like(sigma), sigma.log() if self.log_time else sigma
        if self.path == "subvp":
            a = ((sigma**2 + 4).sqrt() - sigma) / 2
        low, range_ = BETAS[0], BETAS[1] - BETAS[0]
        return a, (-low + (low**2 - 4 * range_ * a.log()).sqrt()) / range_

    def _target(self, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of the clean image and of the noise in what the network predicts."""
        zero, one = torch.zeros_like(a), torch.ones_like(a)
        if self.prediction is None and self.path == "edm":
            return s, -a
        default = {"flow": "velocity", "cosine": "velocity", "ve": "score"}.get(self.path, "epsilon")
        prediction = self.prediction or default
        if prediction == "velocity":
            p, q = (-one, one) if self.path == "flow" else (-math.pi / 2 * s, math.pi / 2 * a)
            is_to_noise = self.noise_at == 1 if self.velocity_to is None else self.velocity_to == "noise"
            return (p, q) if is_to_noise else (-p, -q)
        targets = {"epsilon": (zero, one), "sample": (one, zero), "v_prediction": (-s, a), "score": (zero, -1 / s)}
        return targets[prediction]
