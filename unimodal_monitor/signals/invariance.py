"""Contamination: how much of the features is noise of augmentation and diffusion, from two views of each image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unimodal_monitor.signals.base import Signal, as_lists

RIDGE = 1e-6
"""Added to the noise covariance, as a fraction of its mean variance."""
CONSTANT = 1e-12
"""Variance as a fraction of the squared mean, up to which a feature in single precision may be rounding alone."""
ENOUGH = 10
"""Images for each feature, from which on the bias is under a hundredth of the ICR where features are Gaussian."""


@dataclass(frozen=True, eq=False)
class ICR:
    """The ICR at all levels, with what each image contributes.

    Args:
        icr_K: (K,) lower is cleaner; 0 no noise, 1 no signal. An unbiased estimate may leave that range by its error.
        error_K: (K,) standard errors.
        cleanliness_KN: (K, N) jackknife pseudo-values of 1 - ICR, higher is better, in the order of the images'
            numbers. Their mean is the estimate, and their covariance over N that of the estimates.
        num_features: D, the most features at any level that vary at all.
        num_directions: of the space of the features in which it was measured; D where that was the whole of it.
    """

    icr_K: Tensor
    error_K: Tensor
    cleanliness_KN: Tensor
    num_features: int
    num_directions: int

    @property
    def is_biased(self) -> bool:
        """Whether the images are so few for the directions that the estimate may be biased."""
        return self.cleanliness_KN.shape[1] < ENOUGH * self.num_directions

    def describe(self) -> str:
        """What the estimate is worth, in one sentence."""
        num, features = self.cleanliness_KN.shape[1], f"{self.num_features} features"
        if self.num_directions < self.num_features:
            features = f"{self.num_directions} random directions of {features}"
        if not self.is_biased:
            return f"ICR from two views of {num} images, {features}"
        return (
            f"ICR from two views of only {num} images for {features} may be biased; "
            f"give {ENOUGH * self.num_features} images or more, or a narrower layer"
        )

    def to_dict(self) -> dict[str, Any]:
        """Primitives only, without the figures of single images."""
        return {
            **as_lists({"icr_K": self.icr_K, "error_K": self.error_K}),
            "num_features": self.num_features,
            "num_directions": self.num_directions,
            "num_images": self.cleanliness_KN.shape[1],
            "is_biased": self.is_biased,
        }


class Contamination(Signal):
    """The ICR of the features of one layer, from two views of the same images.

    Args:
        num_levels: K.
        images_per_direction: where there are fewer images for each feature, the features are first projected to so few
            random directions, always the same ones, that each has as many; None keeps all features. The errors of the
            ICR are far too small where images and directions are about as many. With four images for each they hold
            where the noise of the features is about as large for every image.

    Raises:
        ValueError: if an argument is out of range.

    Source: arXiv 2606.09718, whose plug-in estimate is corrected here for the number of images.
    """

    def __init__(self, num_levels: int, *, images_per_direction: int | None = None) -> None:
        super().__init__(num_levels, roles=("first", "second"))
        if images_per_direction is not None and images_per_direction < 1:
            raise ValueError(f"images_per_direction = {images_per_direction}; it is a count, from 1")
        self.images_per_direction = images_per_direction

    def update(self, features_KND: Tensor, indices_N: Tensor, *, is_second: bool) -> None:
        """Add one view of some images.

        Args:
            features_KND: (K, N, D), each view of an image with its own noise.
            indices_N: (N,) numbers of the images, the same for both views.
            is_second: which view.

        Raises:
            ValueError: if the shapes do not fit.
        """
        if features_KND.ndim != 3:
            raise ValueError(f"features must have shape (K, N, D), got {tuple(features_KND.shape)}")
        self._keep("second" if is_second else "first", features_KND, indices_N)

    def compute(self) -> ICR:
        """The ICR of all images so far.

        Raises:
            FloatingPointError: if a feature is not finite.
            ValueError: if there are fewer than three images, one lacks a view, nothing varies, or both views are the
                same.
        """
        (first_KND, first_N), (second_KND, second_N) = (self._kept(role) for role in ("first", "second"))
        if not torch.equal(first_N, second_N):
            raise ValueError(
                f"ICR needs both views of every image, got {len(first_N)} first and {len(second_N)} second"
            )
        if first_KND.shape != second_KND.shape:
            raise ValueError(
                f"both views must have as many features, got {first_KND.shape[2]} and {second_KND.shape[2]}"
            )
        num_images = len(first_N)
        if num_images < 3:
            raise ValueError(f"ICR needs three images or more, got {num_images}")
        most = num_images // self.images_per_direction if self.images_per_direction else first_KND.shape[2]
        levels = [_standardised(*views) for views in zip(first_KND, second_KND, strict=True)]
        narrowed = [_narrowed(*level, most=max(1, most)) for level in levels]
        cleanliness_KN = torch.stack([pseudo_cleanliness(*level) for level in narrowed])
        return ICR(
            icr_K=1 - cleanliness_KN.mean(1),
            error_K=cleanliness_KN.std(1) / num_images**0.5,
            cleanliness_KN=cleanliness_KN,
            num_features=max(int(is_alive_D.sum()) for _, _, is_alive_D in levels),
            num_directions=max(first.shape[1] for first, _ in narrowed),
        )


def pseudo_cleanliness(first_ND: Tensor, second_ND: Tensor) -> Tensor:
    """(N,) jackknife pseudo-values of 1 - ICR, exact leave-one-out at the cost of a few products.

    With W the inverse of the noise covariance and d features, 1 - ICR = T / (1 + T) of
    T = Tr(W Cov(mean view)) / d - Tr(W noise) / (2 d). Leaving an image out subtracts a square from each scatter,
    so that Sherman-Morrison gives every W without another inverse. The ridge stays that of all images.

    Args:
        first_ND: (N, D) features of one view, float64, of comparable variance.
        second_ND: (N, D) of the other.
    """
    num, width = first_ND.shape
    mean_ND, difference_ND = _centred((first_ND + second_ND) / 2), _centred(first_ND - second_ND)
    scatter_DD, noise_DD = mean_ND.T @ mean_ND, difference_ND.T @ difference_ND
    ridge = RIDGE * float(noise_DD.trace()) / (2 * (num - 1) * width)
    is_corrected = num > width + 3
    _, signal, noise = _traces(scatter_DD, noise_DD, 2 * (num - 1) * ridge)
    whole = _cleanliness(signal, noise, num=num, width=width, is_corrected=is_corrected)
    inverse_DD, signal, _ = _traces(scatter_DD, noise_DD, 2 * (num - 2) * ridge)
    factor = num / (num - 1)
    v_ND, w_ND = difference_ND @ inverse_DD, mean_ND @ inverse_DD
    left_N = 1 - factor * (v_ND * difference_ND).sum(1)
    signal_N = (v_ND @ scatter_DD * v_ND).sum(1) - factor * (v_ND * mean_ND).sum(1).square()
    signal_N = signal + 2 * factor * (signal_N / left_N - (w_ND * mean_ND).sum(1))
    noise_N = width - 2 * (num - 2) * ridge * (inverse_DD.trace() + factor * v_ND.square().sum(1) / left_N)
    rest_N = _cleanliness(signal_N, noise_N, num=num - 1, width=width, is_corrected=is_corrected)
    return num * whole - (num - 1) * rest_N


def _traces(scatter_DD: Tensor, noise_DD: Tensor, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """Inverse of the noise scatter, and the traces Tr(W Cov(mean view)) and Tr(W noise)."""
    inverse_DD = torch.linalg.inv(noise_DD + ridge * torch.eye(len(noise_DD)).to(noise_DD))
    return inverse_DD, 2 * (inverse_DD * scatter_DD).sum(), (inverse_DD * noise_DD).sum()


def _cleanliness(signal: Tensor, noise: Tensor, *, num: int, width: int, is_corrected: bool) -> Tensor:
    """1 - ICR of the traces.

    The inverse of the covariance of n Gaussian samples is too large by (n - 1) / (n - d - 2) on average, which is
    corrected where there are images enough to do so.
    """
    factor = (num - width - 2) / (num - 1) if is_corrected else 1.0
    ratio = (signal * factor - noise / 2) / width
    return ratio / (1 + ratio)


def _standardised(first_ND: Tensor, second_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both views with unit variance, and which features vary at all; the others are 0."""
    both = torch.cat([first_ND, second_ND])
    variance_D, mean_D = both.var(0), both.mean(0)
    is_alive_D = variance_D > CONSTANT * mean_D.square()
    if not is_alive_D.any():
        raise ValueError("ICR needs features that vary; all of them are constant over the images")
    scale_D = torch.where(is_alive_D, variance_D.rsqrt(), 0.0)
    first, second = ((view - mean_D) * scale_D for view in (first_ND, second_ND))
    if float((first - second)[:, is_alive_D].var(0).mean()) < 1e-12:
        raise ValueError("both views have the same features; ICR needs another augmentation or noise in each")
    return first, second, is_alive_D


def _narrowed(first_ND: Tensor, second_ND: Tensor, is_alive_D: Tensor, *, most: int) -> tuple[Tensor, Tensor]:
    """The features that vary; where they are more than `most`, so many random directions of them."""
    if int(is_alive_D.sum()) <= most:
        return first_ND[:, is_alive_D], second_ND[:, is_alive_D]
    directions_WD = np.random.Generator(np.random.Philox(key=0)).standard_normal((most, len(is_alive_D)))
    projection_DW = torch.from_numpy(directions_WD).T / len(is_alive_D) ** 0.5
    return first_ND @ projection_DW, second_ND @ projection_DW


def _centred(values_ND: Tensor) -> Tensor:
    return values_ND - values_ND.mean(0)
