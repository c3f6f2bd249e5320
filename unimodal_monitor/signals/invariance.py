"""Invariance: 1 - ICR, the share of the features that two views of an image have in common."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from unimodal_monitor.signals.measured import Measured
from unimodal_monitor.stats.estimate import Estimate, mean_estimate

RIDGE = 1e-6  # added to the noise covariance, as a fraction of its mean variance
CONSTANT = 1e-12
"""Variance as a fraction of the squared mean, up to which a feature in single precision may be rounding alone."""
ENOUGH = 10  # images per direction, from which on the bias is under a hundredth of the ICR where features are Gaussian


def invariance(measured: Measured) -> Estimate | None:
    """1 - ICR of held-out images: 1 is no noise of augmentation and diffusion in the features, 0 is noise alone."""
    if measured.invariance is None:
        return None
    estimate = mean_estimate("invariance", "invariance (1 - ICR)", measured.sigmas, measured.invariance, neutral=0.0)
    num_images, width, directions = measured.invariance.shape[1], measured.num_features, measured.num_directions
    if num_images >= ENOUGH * directions:
        return estimate
    features = f"{directions} random directions of {width} features" if directions < width else f"{width} features"
    needed = f"need {ENOUGH * width} images or a narrower layer, got {num_images} images"
    return replace(estimate, note=f"the ICR of {features} may be biased: {needed}")


def invariance_values(
    first_KND: Tensor, second_KND: Tensor, *, images_per_direction: int = 4
) -> tuple[Tensor, int, int]:
    """(K, N) jackknife pseudo-values of 1 - ICR, and the numbers of features that vary and of directions.

    Their mean is the estimate, and their covariance over images gives that of the estimates.

    Args:
        first_KND: Features of one view of each image.
        second_KND: Features of the other view, with another augmentation and noise.
        images_per_direction: Where fewer images per feature are given, features are projected to so few random
            directions, always the same, that each has as many. With about as many directions as images the errors
            are far too small; with four images for each they are right where the noise of all images is about as large.

    Raises:
        FloatingPointError: if a feature is not finite.
        ValueError: if shapes differ, there are fewer than 3 images, nothing varies, or both views are the same.

    Source: arXiv 2606.09718, whose plug-in estimate is corrected here for the number of images.
    """
    if first_KND.shape != second_KND.shape or first_KND.ndim != 3 or first_KND.shape[1] < 3:
        shapes = f"{tuple(first_KND.shape)} and {tuple(second_KND.shape)}"
        raise ValueError(f"ICR needs two views (K, N, D) of one shape and at least 3 images, got {shapes}")
    if not (first_KND.isfinite().all() and second_KND.isfinite().all()):
        raise FloatingPointError("ICR got features that are not finite")
    most = max(1, first_KND.shape[1] // images_per_direction)
    views = zip(first_KND.double().cpu(), second_KND.double().cpu(), strict=True)
    levels = [_directions(first_ND, second_ND, most=most) for first_ND, second_ND in views]
    values_KN = torch.stack([pseudo_values(first, second) for first, second, _ in levels])
    return values_KN, max(num for _, _, num in levels), max(first.shape[1] for first, _, _ in levels)


def pseudo_values(first_ND: Tensor, second_ND: Tensor) -> Tensor:
    """(N,) jackknife pseudo-values of 1 - ICR of float64 features: exact leave-one-out at the cost of a few products.

    With W the inverse of the noise covariance and d features, 1 - ICR = T / (1 + T) of
    T = Tr(W Cov(mean view)) / d - Tr(W noise) / (2 d). Leaving an image out subtracts a square from each scatter,
    so that Sherman-Morrison gives every W without another inverse. The ridge stays that of all images.

    The inverse of the covariance of n Gaussian samples is too large by (n - 1) / (n - d - 2) on average, which is
    corrected where the images are enough.
    """
    num, width = first_ND.shape
    mean_ND, difference_ND = (x_ND - x_ND.mean(0) for x_ND in ((first_ND + second_ND) / 2, first_ND - second_ND))
    scatter_DD, noise_DD = mean_ND.T @ mean_ND, difference_ND.T @ difference_ND
    eye_DD, ridge = torch.eye(width, dtype=torch.float64), RIDGE * noise_DD.trace() / width

    def one_minus_icr(signal: Tensor, noise: Tensor, num_left: int) -> Tensor:
        factor = (num_left - width - 2) / (num_left - 1) if num > width + 3 else 1.0
        ratio = (signal * factor - noise / 2) / width
        return ratio / (1 + ratio)

    inverse_DD = torch.linalg.inv(noise_DD + ridge * eye_DD)
    whole = one_minus_icr(2 * (inverse_DD * scatter_DD).sum(), (inverse_DD * noise_DD).sum(), num)
    ridge = ridge * (num - 2) / (num - 1)
    inverse_DD, factor = torch.linalg.inv(noise_DD + ridge * eye_DD), num / (num - 1)
    v_ND, w_ND = difference_ND @ inverse_DD, mean_ND @ inverse_DD
    left_N = 1 - factor * (v_ND * difference_ND).sum(1)
    signal_N = (v_ND @ scatter_DD * v_ND).sum(1) - factor * (v_ND * mean_ND).sum(1).square()
    signal_N = 2 * ((inverse_DD * scatter_DD).sum() + factor * (signal_N / left_N - (w_ND * mean_ND).sum(1)))
    noise_N = width - ridge * (inverse_DD.trace() + factor * v_ND.square().sum(1) / left_N)
    return num * whole - (num - 1) * one_minus_icr(signal_N, noise_N, num - 1)


def _directions(first_ND: Tensor, second_ND: Tensor, *, most: int) -> tuple[Tensor, Tensor, int]:
    """Both views of the features that vary, of unit variance, or of `most` random directions of them; their number."""
    both = torch.cat([first_ND, second_ND])
    variance_D, mean_D = both.var(0), both.mean(0)
    is_alive_D = variance_D > CONSTANT * mean_D.square()
    num, width = int(is_alive_D.sum()), len(is_alive_D)
    if num == 0:
        raise ValueError("ICR needs features that vary; all of them are constant over the images")
    scale_D = torch.where(is_alive_D, variance_D.rsqrt(), 0.0)
    first, second = ((view - mean_D) * scale_D for view in (first_ND, second_ND))
    if float((first - second)[:, is_alive_D].var(0).mean()) < 1e-12:
        raise ValueError("both views have the same features; ICR needs another augmentation or noise in each")
    if num <= most:
        return first[:, is_alive_D], second[:, is_alive_D], num
    directions_WD = np.random.Generator(np.random.Philox(key=0)).standard_normal((most, width))
    projection_DW = torch.from_numpy(directions_WD).T / width**0.5
    return first @ projection_DW, second @ projection_DW, num
