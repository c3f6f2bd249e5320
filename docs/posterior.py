"""The posterior mean of the mixture in closed form: the denoiser of a network that generalizes perfectly."""

import torch
from torch import Tensor, nn

from unimodal_monitor.theory.molrg import MoLRG


class PosteriorMean:
    """E[x0 | x] of a `MoLRG` as a denoiser: the minimizer of the denoising loss over infinite data.

    For each class the noised sample is shrunk by 1 / (1 + sigma^2) in the directions of the class and by
    delta^2 / (delta^2 + sigma^2) in the others; the results are averaged with the posterior probabilities w_l:

        E[x0 | x] = sum_l w_l(x) (1 / (1 + sigma^2) U_l U_l^T + delta^2 / (delta^2 + sigma^2) V_l V_l^T) x

    Computed in float64 for classes at any angle and with any means. For orthogonal classes it is the paper's denoiser
    U h with h = D(x, sigma) U^T x. The submodule `code` of `network` passes h, (N, K * d), with K more columns where
    the means are separated.

    Source: Li et al. 2025 (arXiv 2502.05743), proposition 1.
    """

    def __init__(self, data: MoLRG) -> None:
        self.data = data
        self.network: nn.Module = _Mixture(data)

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """Denoise (N, ...) samples of n numbers, in the precision of `noised`; see `Denoiser`."""
        if noised.ndim < 2 or noised[:1].numel() not in (0, self.data.dim):
            raise ValueError(f"need samples of {self.data.dim} numbers, got shape {tuple(noised.shape)}")
        denoised: Tensor = self.network(noised, sigma)
        return denoised

    def snap(self, sigmas: Tensor) -> Tensor:
        """Every positive, finite level."""
        levels: Tensor = torch.unique(sigmas[(sigmas > 0) & sigmas.isfinite()])
        return levels


class _Mixture(nn.Module):
    """The sum as a module, for hooks."""

    def __init__(self, data: MoLRG) -> None:
        super().__init__()
        self.data = data
        self.code = nn.Identity()

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        x, data = noised.flatten(1).double(), self.data
        basis, frames, means = (tensor.to(x) for tensor in (data.basis(), data.frames(), data.means()))
        noise = sigma.to(x).square()[:, None]
        variance = torch.full_like(frames[0], data.delta**2).fill_diagonal_(1)[:, :, None]  # class, direction, 1
        groups = (x @ basis).reshape(len(x), data.num_classes, data.rank)
        turned = torch.einsum("lij,nid->nljd", frames, groups)
        total = variance + noise[:, :, None, None]
        exponents = -(turned.square() / total).sum((2, 3)) / 2 + x @ means.T / noise
        weights = exponents.softmax(1)
        shrunk = turned * (weights[:, :, None, None] * variance / total)
        span = torch.einsum("lij,nljd->nid", frames, shrunk).flatten(1)
        if not data.mean_distance:
            weights, means = weights[:, :0], means[:0]
        code: Tensor = self.code(torch.cat([span, weights], 1))
        return (code @ torch.cat([basis.T, means])).reshape(noised.shape).to(noised)
