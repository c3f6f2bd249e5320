"""The perfect memorizer: the best denoiser for the training images and for nothing else."""

import torch
from torch import Tensor, nn

NEGLIGIBLE = 1e-18
"""A weight relative to the largest one; of 50,000 images with less than this, float64 shows nothing in the mean."""


class Memorizer:
    """The minimiser of the denoising loss over a finite training set: the mean of its images, weighted by nearness.

        D(x, sigma) = sum_i softmax_i(-|x - x_i|^2 / (2 sigma^2)) x_i

    At low noise it answers with the nearest training image and at high noise with the mean of all; a sampler that
    follows it gives training images and nothing else. It is what a network becomes that memorizes without limit.

    All images are compared, in float64: in float32 the distances at sigma = 0.002 would be off by more than the
    exponents differ. Rounding moves an exponent by some 1e-16 |x|^2 / sigma^2: less than 1e-6 for 3 x 32 x 32
    pixels in [-1, 1] at sigma = 0.002. Images and noised images on an accelerator need one that has float64.

    Args:
        images: (N, ...) training images in data units; kept, not copied.
        chunk_size: images compared at a time; beside the images it needs chunk_size * (pixels + 2 * batch) float64.

    Raises:
        ValueError: if `images` holds no pixel or a value that is not finite, or is not of a floating type.

    Source: Karras et al. 2022 (arXiv 2206.00364), equation 57.
    """

    def __init__(self, images: Tensor, *, chunk_size: int = 4096) -> None:
        if chunk_size < 1:
            raise ValueError(f"chunk_size = {chunk_size}; 1 or more images can be compared at a time")
        if images.ndim < 2 or images.numel() == 0:
            raise ValueError(f"images are of shape {tuple(images.shape)}; (N, ...) with an image and a pixel would do")
        if not images.is_floating_point() or not images.isfinite().all():
            raise ValueError(f"images of type {images.dtype} are to be finite floats in data units, usually [-1, 1]")
        self.images = images
        self.chunk_size = chunk_size
        self._network = _Recall(images, chunk_size)

    @property
    def network(self) -> nn.Module:
        """Its submodule `recalled` passes the denoised images, (N, ...), for a monitor to hook."""
        return self._network

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """Denoise, see `Denoiser`; the result is of the type and on the device of `noised`.

        Raises:
            ValueError: if the noised images are not of the training images' shape.
        """
        if noised.shape[1:] != self.images.shape[1:]:
            raise ValueError(f"noised is of shape {tuple(noised.shape)}; images of {tuple(self.images.shape[1:])} fit")
        recalled: Tensor = self._network(noised, sigma)
        return recalled

    def snap(self, sigmas: Tensor) -> Tensor:
        """Every positive, finite level."""
        return torch.unique(sigmas[(sigmas > 0) & sigmas.isfinite()])


class _Recall(nn.Module):
    """The sum, as a module so that it can be hooked; the images are no part of its state."""

    images: Tensor

    def __init__(self, images: Tensor, chunk_size: int) -> None:
        super().__init__()
        self.register_buffer("images", images, persistent=False)
        self.chunk_size = chunk_size
        self.recalled = nn.Identity()

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        x = noised.flatten(1).double()
        variance = sigma.to(x).square()[:, None]
        largest = x.new_full((len(x), 1), -torch.inf)
        total, mean = torch.zeros_like(largest), torch.zeros_like(x)
        for chunk in self.images.split(self.chunk_size):
            candidates = chunk.flatten(1).to(x)
            # |x|^2 is the same for all images and left out
            exponents = (x @ candidates.T - candidates.square().sum(1) / 2) / variance
            previous, largest = largest, torch.maximum(largest, exponents.amax(1, keepdim=True))
            rescale, weights = (previous - largest).exp(), (exponents - largest).exp()
            is_seen = (weights > NEGLIGIBLE).any(0)
            total = rescale * total + weights.sum(1, keepdim=True)
            mean = rescale * mean + weights[:, is_seen] @ candidates[is_seen]
        recalled: Tensor = self.recalled((mean / total).reshape(noised.shape).to(noised))
        return recalled
