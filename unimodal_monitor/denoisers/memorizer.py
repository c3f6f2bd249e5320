"""The perfect memorizer: the best denoiser for the training images and for nothing else."""

import torch
from torch import Tensor, nn

from unimodal_monitor.denoisers.base import Denoiser

CHUNK = 4096  # training images that are compared at a time; memory for them: CHUNK * (pixels + 2 * batch) float64
NEGLIGIBLE = 1e-18
"""Weights below this share of the largest are left out: in float64, 50,000 of them do not change the mean."""


class Memorizer(nn.Module, Denoiser):
    """The minimiser of the denoising loss over a finite training set: the mean of its images, weighted by nearness.

        D(x, sigma) = sum_i softmax_i(-|x - x_i|^2 / (2 sigma^2)) x_i       (arXiv 2206.00364, equation 57)

    At low noise this is the nearest training image, at high noise the mean of all. All images are compared, in float64,
    which an accelerator must have: at sigma = 0.002 and 3 x 32 x 32 pixels in [-1, 1] rounding changes an exponent by
    less than 1e-6, in float32 by more than exponents differ. To be hooked, the submodule `recalled` passes the result.
    """

    images: Tensor  # (N, ...) training images in data units; not copied

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        if images.ndim < 2 or images.numel() == 0:
            raise ValueError(f"images must be of shape (N, ...) with at least one pixel, got {tuple(images.shape)}")
        if not images.is_floating_point() or not images.isfinite().all():
            raise ValueError(f"images must be finite floats in data units, usually [-1, 1], got {images.dtype}")
        self.register_buffer("images", images, persistent=False)
        self.recalled = nn.Identity()

    @property
    def network(self) -> nn.Module:  # type: ignore[override]
        """The denoiser itself."""
        return self

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """Denoise, see `Denoiser`; the result has the type and the device of `noised`."""
        if noised.shape[1:] != self.images.shape[1:]:
            raise ValueError(f"noised is of shape {tuple(noised.shape)}; need images of {tuple(self.images.shape[1:])}")
        x = noised.flatten(1).double()
        variance = sigma.to(x).square()[:, None]
        largest = x.new_full((len(x), 1), -torch.inf)
        total, mean = torch.zeros_like(largest), torch.zeros_like(x)
        for chunk in torch.split(self.images, CHUNK):
            candidates = chunk.flatten(1).to(x)
            # |x|^2 is the same for all images and left out
            exponents = (x @ candidates.T - candidates.square().sum(1) / 2) / variance
            previous, largest = largest, torch.maximum(largest, exponents.amax(1, keepdim=True))
            rescale, weights = (previous - largest).exp(), (exponents - largest).exp()
            is_used = (weights > NEGLIGIBLE).any(0)
            total = rescale * total + weights.sum(1, keepdim=True)
            mean = rescale * mean + weights[:, is_used] @ candidates[is_used]
        recalled: Tensor = self.recalled((mean / total).reshape(noised.shape).to(noised))
        return recalled
