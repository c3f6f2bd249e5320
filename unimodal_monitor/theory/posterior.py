"""The exact posterior mean of the mixture: a network that generalizes perfectly, known in closed form."""

import torch
from torch import Tensor, nn

from unimodal_monitor.theory.molrg import MoLRG


class PosteriorMean:
    """E[x0 | x] of a `MoLRG` as a denoiser: the minimiser of the denoising loss over endless data.

    For each class the noised sample is shrunk, by 1 / (1 + sigma^2) in the class's own directions and by
    delta^2 / (delta^2 + sigma^2) in the others, and the classes are averaged by how likely they are:

        E[x0 | x] = sum_l w_l(x) (1 / (1 + sigma^2) U_l U_l^T + delta^2 / (delta^2 + sigma^2) V_l V_l^T) x

    Computed in float64, for classes at any angle and with any means; for the paper's orthogonal classes it is the
    paper's denoiser U h with h = D(x, sigma) U^T x.

    Source: Li et al. 2025 (arXiv 2502.05743), proposition 1.
    """

    def __init__(self, data: MoLRG) -> None:
        self.data = data
        self._network = _Mixture(data)

    @property
    def network(self) -> nn.Module:
        """Its submodule `code` passes h, (N, K * d), with K more columns where the means are separated."""
        return self._network

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """Denoise (N, ...) samples of n numbers, see `Denoiser`; the result is of the type of `noised`.

        Raises:
            ValueError: if a sample has not the mixture's n numbers.
        """
        if noised.ndim < 2 or noised[:1].numel() not in (0, self.data.dim):
            raise ValueError(f"noised is of shape {tuple(noised.shape)}; samples of {self.data.dim} numbers would do")
        denoised: Tensor = self._network(noised, sigma)
        return denoised

    def snap(self, sigmas: Tensor) -> Tensor:
        """Every positive, finite level."""
        return torch.unique(sigmas[(sigmas > 0) & sigmas.isfinite()])


class _Mixture(nn.Module):
    """The sum, as a module so that it can be hooked."""

    def __init__(self, data: MoLRG) -> None:
        super().__init__()
        self.data = data
        self.code = nn.Identity()

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        x, data = noised.flatten(1).double(), self.data
        basis, frames, means = (tensor.to(x) for tensor in (data.basis(), data.frames(), data.means()))
        noise = sigma.to(x).square()[:, None]
        variance = torch.full_like(frames[0], data.delta**2).fill_diagonal_(1)[:, :, None]  # (class, direction, 1)
        groups = (x @ basis).reshape(len(x), data.num_classes, data.rank)
        turned = torch.einsum("lij,nid->nljd", frames, groups)
        total = variance + noise[:, :, None, None]
        exponents = -(turned.square() / total).sum((2, 3)) / 2 + x @ means.T / noise
        weights = exponents.softmax(1)
        shrunk = turned * (weights[:, :, None, None] * variance / total)
        span = torch.einsum("lij,nljd->nid", frames, shrunk).flatten(1)
        if not data.mean_distance:
            code: Tensor = self.code(span)
            return (code @ basis.T).reshape(noised.shape).to(noised)
        code = self.code(torch.cat([span, weights], 1))
        return (code @ torch.cat([basis.T, means])).reshape(noised.shape).to(noised)
