"""Whether the probe images are in the space that the network is trained on: shape, range, mean, spread, smoothness."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

MAX_VALUES = 4096  # of one image, from its middle
MAX_PROBED = 512  # probe images that are compared
SPREAD, ROUGHNESS = math.log(1.45), math.log(4)  # least ratios that count
SHIFT = 1.25  # least difference of means that counts, in standard deviations: one class is off by 0.9 in CIFAR-10
SAME = 1e-2  # distance from a probe image to the same image, as recovered from a training step, by its contrast
SURE = 5.0  # least difference that counts in standard errors
NAMED = {
    ("[0, 1]", "2 * image - 1"): (2.0, -1.0),
    ("[-1, 1]", "(image + 1) / 2"): (0.5, 0.5),
    ("[0, 255]", "image / 127.5 - 1"): (1 / 127.5, -1.0),
    ("[0, 255]", "image / 255"): (1 / 255, 0.0),
    ("[-1, 1]", "127.5 * (image + 1)"): (127.5, 127.5),
    ("[0, 1]", "255 * image"): (255.0, 0.0),
}
"""Usual changes of a range, as factor and offset."""


def middle(images: Tensor) -> Tensor:
    """(N, ...) the middle of large images, at most `MAX_VALUES` values of each."""
    while math.prod(shape := images.shape[1:]) > MAX_VALUES:
        axis = max(range(len(shape)), key=lambda i: shape[i])
        keep = (shape[axis] + 1) // 2
        images = images.narrow(axis + 1, (shape[axis] - keep) // 2, keep)
    return images


def name_range(images: Tensor) -> str:
    """The range of pixels, as "[-1, 1]"."""
    low, high = float(images.min()), float(images.max())
    for least, most, slack in ((0, 1, 0.1), (-1, 1, 0.2), (0, 255, 25)):
        if least <= low + 1e-6 and high - 1e-6 <= most and low <= least + slack and high >= most - slack:
            return f"[{least}, {most}]"
    return f"[{low:.2g}, {high:.2g}]"


def compare_space(probe: Tensor, seen: Sequence[Tensor], *, shape: Sequence[int], image: Tensor | None) -> str | None:
    """How the probe images differ from the images that the network is trained on, and the transform that mends it.

    Args:
        probe: (N, C, ...) images of the probe set.
        seen: n clean images, each the `middle` of one of `shape`, in the units of the network.
        shape: (C, ...) of the images that the network gets.
        image: (n, D) values of the batch's own images, in the order of `seen`; None if not known.

    Returns:
        A sentence, or None where no difference is significant.
    """
    if tuple(probe.shape[1:]) != tuple(shape):
        sizes = f"the probe images are {tuple(probe.shape[1:])}, the network is trained on {tuple(shape)}"
        return f"{sizes}; give a transform= that makes them so, such as the step's crop, or its encoder"
    theirs, probed = torch.stack(list(seen)), middle(probe).cpu()
    if _have_the_same(probed.flatten(1).float(), theirs.float()):
        return None
    rows = torch.linspace(0, len(probe) - 1, min(len(probe), MAX_PROBED)).long()
    ours = probed[rows].double()
    theirs = theirs.view(-1, *ours.shape[1:])
    before, after = _Moments(ours), _Moments(theirs)
    if before.differs_from(after):
        had, has = (
            f"{name_range(images)} (mean {float(images.mean()):.2g}, standard deviation {float(images.std()):.2g})"
            for images in (ours, theirs)
        )
        change = _transform(before, after, ours, theirs, image)
        return f"the probe images are in {had}, the network is trained on images in {has}; give transform={change}"
    if probe.ndim > 3 and (rough := _rougher(ours, theirs)) is not None:
        return (
            f"neighbouring values of the images that the network is trained on differ {rough:.2g} times as much as the"
            " probe images': pixels for latents, or the other way round; give transform=, such as"
            " lambda images, module: module.vae.encode(images)..."
        )
    return None


def _have_the_same(ours: Tensor, theirs: Tensor) -> bool:
    """Whether an image seen is one of the probe images: then both are in one space, in whatever order they come."""
    nearest = torch.cdist(theirs, ours, compute_mode="donot_use_mm_for_euclid_dist").min(1).values
    return bool((nearest < SAME * (theirs - theirs.mean(1, keepdim=True)).norm(dim=1)).any())


class _Moments:
    """Means and variances by channel, with their standard errors over images."""

    def __init__(self, images: Tensor) -> None:
        flat = images.flatten(2) if images.ndim > 2 else images[:, None]
        mean_NC, var_NC = flat.mean(2), flat.var(2, correction=0)
        self.mean = mean_NC.mean(0)
        self.var = flat.transpose(0, 1).flatten(1).var(1, correction=0).clamp_min(1e-12)  # within and between images
        size = len(images) ** 0.5
        spread_NC = var_NC + (mean_NC - self.mean).square()
        self.mean_error = mean_NC.std(0) / size
        self.log_error = 0.5 * spread_NC.std(0) / size / self.var

    def differs_from(self, other: "_Moments", factor: float = 1.0, offset: float = 0.0) -> bool:
        """Whether factor * these images + offset have other moments in some channel."""
        log_ratio = 0.5 * (other.var.log() - self.var.log()) - math.log(factor)
        log_error = (self.log_error.square() + other.log_error.square()).sqrt()
        shift = other.mean - factor * self.mean - offset
        shift_error = ((factor * self.mean_error).square() + other.mean_error.square()).sqrt()
        least = SHIFT * other.var.sqrt()
        differs = (log_ratio.abs() > (SURE * log_error).clamp_min(SPREAD)) | (
            shift.abs() > torch.maximum(SURE * shift_error, least)
        )
        return bool(differs.any())


def _transform(before: _Moments, after: _Moments, ours: Tensor, theirs: Tensor, image: Tensor | None) -> str:
    """The change from the probe images to those of the network, in Python or in words."""
    for text, factor, offset in _candidates(before, after, ours, theirs, image):
        if not before.differs_from(after, factor, offset):
            return f"lambda image: {text}"
    stds, means = ([round(float(v), 3) for v in values] for values in (after.var.sqrt(), after.mean))
    return f"a function that gives each channel the mean {means} and the standard deviation {stds}"


def _candidates(
    before: _Moments, after: _Moments, ours: Tensor, theirs: Tensor, image: Tensor | None
) -> Iterator[tuple[str, float, float]]:
    if image is not None:  # exactly what the training step makes of its batch
        columns = torch.stack([image.flatten(), torch.ones(image.numel(), dtype=image.dtype)], 1)
        factor, offset = torch.linalg.lstsq(columns, theirs.reshape(-1, 1)).solution.flatten().tolist()
        rest = theirs.flatten() - factor * image.flatten() - offset
        if factor > 0 and float(rest.std() / theirs.std()) < 1e-2:
            known = (text for (_, text), pair in NAMED.items() if math.dist(pair, (factor, offset)) < 1e-2 * pair[0])
            shift = f" + {offset:.4g}" if abs(offset) > 1e-4 * float(theirs.std()) else ""
            yield next(known, f"{factor:.4g} * image{shift}"), factor, offset
    used = name_range(ours)
    yield from ((text, *change) for (known, text), change in NAMED.items() if known == used)
    factor = float((after.var / before.var).sqrt().median())
    yield f"{factor:.4g} * image  # such as a VAE's scaling_factor", factor, 0.0


def _rougher(ours: Tensor, theirs: Tensor) -> float | None:
    """The ratio of their mean squared difference of neighbours to ours, both over the variance, if it counts."""
    logs = []
    for images in (theirs, ours):
        variance = images.flatten(1).var(1)
        rough = images.diff(dim=-1).square().flatten(1).mean(1)[variance > 0] / variance[variance > 0]
        logs.append(rough.clamp_min(1e-12).log())
    if min(map(len, logs)) < 8:
        return None
    difference = float(logs[0].mean() - logs[1].mean())
    error = math.sqrt(sum(float(log.var()) / len(log) for log in logs))
    return math.exp(difference) if abs(difference) > max(ROUGHNESS, SURE * error) else None
