"""Which image and which noise the inputs of a network are made of."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unimodal_monitor.detect.space import middle

EXPLAINED = 0.02  # share of an input that image and noise may leave over
MAX_PAIRED = 512  # images and draws of a step that may belong together


def as_tokens(images: Tensor, noised: Tensor) -> Tensor | None:
    """(N, C, ..., H, W) as the network's input (N, tokens, C p p), as Flux packs its latents; None if it is no such."""
    if noised.ndim != 3 or images.ndim < 4 or len(images) != len(noised) or images.numel() != noised.numel():
        return None
    num, channels, *frames, height, width = images.shape
    p = math.isqrt(noised.shape[2] // channels)
    if channels * p * p != noised.shape[2] or height % p or width % p:
        return None
    patches = images.reshape(num, channels, math.prod(frames), height // p, p, width // p, p)
    return patches.permute(0, 2, 3, 5, 1, 4, 6).reshape(noised.shape)


def parts_of(
    noised: Tensor, images: Sequence[Tensor], drawn: Sequence[Tensor]
) -> tuple[Tensor | None, Tensor | None, bool]:
    """(n, D) noise and image of the network's inputs (n, D), and whether the two explain them together.

    A job may draw more of this shape (a VAE's posterior, dropout of its own), have several images in its batch, or pair
    images and noise anew (optimal transport): they are the two that explain the input together. Where none do, because
    the step changes its images or its noise, one of the two is wrong: the most similar draw, and the first image.

    Args:
        noised: Inputs.
        images: All of the batch that have this shape, (N, D) each; noise may be among them, if none was drawn.
        drawn: All normal tensors of this shape, (N, D) each.
    """
    num, drawn = len(noised), drawn or [image for image in images if _is_standard(image)]
    images = [image for image in images if not any(image is noise for noise in drawn)]
    if not drawn:
        return None, images[0][:num] if images else None, True
    alone = max(drawn, key=lambda noise: float(_correlation(noised, noise[:num]).diagonal().abs().median()))
    if not images:
        return alone[:num], None, True
    best, rest = _best(noised, [(noise[:num], image[:num]) for noise in drawn for image in images])
    if rest >= EXPLAINED and num > 1:
        best, rest = _best(noised, [_paired_anew(noised, noise, image) for noise in drawn for image in images])
    return (*best, True) if rest < EXPLAINED else (alone[:num], images[0][:num], False)


def _is_standard(values: Tensor) -> bool:
    """Whether it may be noise: a mean of 0 and a deviation of 1, over all of at least 1,000 values."""
    return values.numel() >= 1000 and abs(float(values.mean())) < 0.1 and abs(float(values.std()) - 1) < 0.05


def _best(noised: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[tuple[Tensor, Tensor], float]:
    """The pair that leaves the least, and how much."""
    rests = [float(_rest(noised, *pair).median()) for pair in pairs]
    least = min(range(len(pairs)), key=lambda i: rests[i])
    return pairs[least], rests[least]


def _rest(noised: Tensor, noise: Tensor, image: Tensor) -> Tensor:
    """(n,) share of each input that image, noise and a constant do not explain."""
    columns = torch.stack([image, noise, torch.ones_like(image)], dim=2)
    fitted = (columns @ torch.linalg.lstsq(columns, noised[..., None]).solution)[..., 0]
    rest: Tensor = (noised - fitted).norm(dim=1) / noised.norm(dim=1)
    return rest


def _paired_anew(noised: Tensor, noise: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """The noise and the image, out of all, that explain each input best, by their multiple correlation with it."""
    noise, images = noise[:MAX_PAIRED], images[:MAX_PAIRED]
    of_noise, of_images = _correlation(noised, noise)[:, :, None], _correlation(noised, images)[:, None, :]
    both = _correlation(noise, images)[None]
    explained = (of_noise**2 + of_images**2 - 2 * of_noise * of_images * both) / (1 - both**2).clamp_min(1e-9)
    best = explained.flatten(1).argmax(1)
    return noise[best // len(images)], images[best % len(images)]


def _correlation(values: Tensor, others: Tensor) -> Tensor:
    """(n, N) of rows with rows."""
    values, others = (rows - rows.mean(1, keepdim=True) for rows in (values, others))
    norms = values.norm(dim=1)[:, None] * others.norm(dim=1)
    correlations: Tensor = values @ others.T / norms.clamp_min(1e-12)
    return correlations


def flat(tensor: Tensor) -> Tensor:
    """(N, D) float64 values of the middle of each image, on the CPU."""
    return middle(tensor.detach()).flatten(1).cpu().double()
