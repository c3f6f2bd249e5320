"""How a denoiser calls its network, and how well that agrees with recorded training steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from unimodal_monitor.denoisers.network import NetworkDenoiser
from unimodal_monitor.detect.record import Row

USUAL = ((1.0, 0.0), (2.0, -1.0), (1 / 127.5, -1.0))  # factor and offset from the batch to the network

SEEN, SEEN_SIGN = 1.5, 2e-3  # how much worse a target of another size fits where the outputs tell its size


@dataclass(frozen=True)
class Fit:
    """Disagreement of a convention with what was seen, as a fraction; 0 is perfect."""

    input: float  # of the network's input with clean + sigma noise
    target: float  # of the output minus the target, with the direction of the loss's gradient
    sign: float  # fraction of values whose gradient has the sign of output minus target

    @property
    def error(self) -> float:
        """The larger of the two."""
        return max(self.input, self.target)


class Convention:
    """Input factor a, time, and D = alpha noised + beta output of a denoiser, all functions of sigma.

    They are read by calling the denoiser with a stand-in for its network, which costs no forward; or for the `inner`
    part of the network that the training calls, such as in k-diffusion's wrappers.
    """

    def __init__(self, denoiser: NetworkDenoiser, inner: nn.Module | None = None) -> None:
        self._denoiser, self._inner = denoiser, inner
        sigmas = denoiser.snap(torch.logspace(-4, 4, 4001, dtype=torch.float64))
        times = self.at(sigmas)[1]
        order = times.argsort()
        self._times, self._log_sigmas = times[order].numpy(), sigmas[order].log().numpy()

    def at(self, sigmas: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(a, time, alpha, beta) at each of (K,) sigmas."""
        (a, time, alpha), (_, _, both) = self._call(sigmas, 0.0), self._call(sigmas, 1.0)
        return a, time, alpha, both - alpha

    def sigmas_at(self, times: Sequence[float]) -> Tensor:
        """The level of each time; nan outside the convention's times."""
        low, high = self._times[0], self._times[-1]
        slack = 1e-3 * (high - low)
        sigmas = np.exp(np.interp(times, self._times, self._log_sigmas))
        is_outside = (np.asarray(times) < low - slack) | (np.asarray(times) > high + slack)
        return torch.from_numpy(np.where(is_outside, np.nan, sigmas))

    def clean(self, rows: Sequence[Row], *, most: float) -> tuple[list[Tensor], list[Row]]:
        """The clean images of the rows with at most this sigma, as the network is trained on them, and their rows."""
        sigmas = self.sigmas_at([row.time for row in rows])
        is_used = sigmas <= most
        used, levels = [row for row, fits in zip(rows, is_used, strict=True) if bool(fits)], sigmas[is_used]
        if not used:
            return [], []
        noised = torch.stack([row.noised for row in used]) / self.at(levels)[0][:, None]
        if not all(row.is_joint for row in used):
            used = min(_alternatives(used), key=lambda rows: self.fit(rows).error)
        clean, _ = _clean(used, noised, levels)
        return ([], []) if clean is None else (list(clean), used)

    def fit(self, rows: Sequence[Row], *, least: float = 0.0, size: float = 1.0) -> Fit:
        """Compare with the rows of at least this sigma; those of times that the convention does not have are unlike.

        `size` is a factor of the target, to see whether the rows tell one size from another.
        """
        if not all(row.is_joint for row in rows):
            fits = [self.fit(part, least=least, size=size) for part in _alternatives(rows)]
            return min(fits, key=lambda fit: fit.error)
        sigmas = self.sigmas_at([row.time for row in rows])
        known = [(row, sigma) for row, sigma in zip(rows, sigmas.tolist(), strict=True) if np.isfinite(sigma)]
        if len(known) < 0.8 * len(rows):
            return Fit(1.0, 1.0, 0.0)
        known = [(row, sigma) for row, sigma in known if sigma >= least] or known
        levels = torch.tensor([sigma for _, sigma in known], dtype=torch.float64)
        used = [row for row, _ in known]
        a, _, alpha, beta = self.at(levels)
        noised = torch.stack([row.noised for row in used]) / a[:, None]
        clean, input_error = _clean(used, noised, levels)
        if clean is None:
            return Fit(1.0, 1.0, 0.0)
        target = size * (clean - alpha[:, None] * noised) / beta[:, None]
        output, gradient = (torch.stack([getattr(row, name) for row in used]) for name in ("output", "gradient"))
        error = output - target
        factor = ((error * gradient).sum(1) / gradient.square().sum(1)).clamp_min(0)  # a loss pulls to its target
        rest = error - factor[:, None] * gradient
        agree = ((error.sign() == gradient.sign()) & (gradient != 0)).double().mean()  # zero where a loss is clamped
        return Fit(input_error, _typical(rest.norm(dim=1) / target.norm(dim=1)), float(agree))

    def sees_size(self, rows: Sequence[Row], *, least: float, by_sign: bool = False) -> bool:
        """Whether targets a quarter larger or smaller would agree less; not so while the outputs are near zero."""
        own, *others = (self.fit(rows, least=least, size=size) for size in (1.0, 0.8, 1.25))
        if by_sign:
            return max(other.sign for other in others) < own.sign - SEEN_SIGN
        return min(other.target for other in others) > SEEN * own.target

    def _call(self, sigmas: Tensor, value: float) -> tuple[Tensor, Tensor, Tensor]:
        seen: list[Tensor] = []

        def predict(images: Tensor, time: Tensor, **conditions: object) -> Tensor:
            seen.extend((images, time))
            return torch.full_like(images, value)

        holder, name = (self._denoiser, "predict") if self._inner is None else (self._inner, "forward")
        setattr(holder, name, predict)
        try:
            with torch.no_grad():
                denoised = self._denoiser(torch.ones(len(sigmas), 1, 1, 1, dtype=torch.float64), sigmas)
        finally:
            delattr(holder, name)
        return seen[0].flatten().double(), seen[1].double(), denoised.flatten().double()


def is_squared_loss(rows: Sequence[Row]) -> bool:
    """Whether output minus gradient is a combination of image, noise and input, as for any weighted squared error."""
    rests = []
    for row in rows:
        known: list[Tensor] = [value for value in (row.noise, row.image) if value is not None]
        columns = torch.stack([row.gradient, row.noised, torch.ones_like(row.noised), *known], dim=1)
        columns = columns / columns.norm(dim=0).clamp_min(1e-300)
        solution = torch.linalg.lstsq(columns, row.output[:, None], driver="gelsd").solution
        rests.append(float((row.output - (columns @ solution)[:, 0]).norm() / row.output.norm().clamp_min(1e-300)))
    return len(rows[0].output) >= 24 and sorted(rests)[len(rests) // 2] < 1e-4


def _alternatives(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows without their images, and without their noise."""
    return [
        [replace(row, is_joint=True, image=None) for row in rows],
        [replace(row, is_joint=True, noise=None) for row in rows],
    ]


def _clean(rows: Sequence[Row], noised: Tensor, sigmas: Tensor) -> tuple[Tensor | None, float]:
    """(N, D) clean images as the network sees them, and how much the input disagrees; None without noise and image."""
    noise = None if any(row.noise is None for row in rows) else torch.stack([_some(row.noise) for row in rows])
    image = None if any(row.image is None for row in rows) else torch.stack([_some(row.image) for row in rows])
    num = noised.shape[1]
    if noise is not None:
        clean = noised - sigmas[:, None] * noise
        std = clean.std(dim=1)
        if image is not None:
            rest = clean - _affine(image, clean, torch.ones_like(sigmas))
            off = rest.square().mean(1).sqrt() / torch.minimum(sigmas, std)
            if _typical(off) < 0.3:
                return clean, _typical(off)
        centred = clean - clean.mean(1, keepdim=True)
        like = (centred * noise).sum(1) / (centred.norm(dim=1) * noise.norm(dim=1)).clamp_min(1e-12)
        spread = _typical((std.log() - std.log().median()).abs())
        return clean, max(0.0, _typical(like.abs()) - 3 / num**0.5, 0.3 * (spread > 1))
    if image is not None:
        clean = _affine(image, noised, 1 / sigmas)
        std = (noised - clean).square().mean(1).sqrt()
        return clean, max(0.0, _typical((std / sigmas).log().abs()) - 3 / (2 * num) ** 0.5)
    return None, 1.0


def _affine(image: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """k image + m, nearest to the values over all rows."""
    w = weights[:, None].expand_as(image).flatten()
    columns = torch.stack([image.flatten(), torch.ones_like(w)], dim=1)
    solution = torch.linalg.lstsq(columns * w[:, None], (values.flatten() * w)[:, None]).solution.flatten()
    usual = [torch.tensor(pair, dtype=values.dtype) for pair in USUAL]
    near = [pair for pair in usual if abs(solution[0] / pair[0] - 1) < 0.06 and abs(solution[1] - pair[1]) < 0.06]
    fitted: Tensor = columns @ (near[0] if near else solution)
    return fitted.view_as(image)


def _some(value: Tensor | None) -> Tensor:
    assert value is not None
    return value


def _typical(values: Tensor) -> float:
    return float(values.nan_to_num(1e9).quantile(0.8))
