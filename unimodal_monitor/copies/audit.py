"""The copy audit: draw samples, and count those that are copies of training images."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor

from unimodal_monitor.copies.duplicates import THIRD, distinct_distances
from unimodal_monitor.copies.nearest import Distances, nearest_training_images
from unimodal_monitor.copies.sampler import draw_samples, heun_forwards, sampling_sigmas
from unimodal_monitor.data.image_set import ImageSet
from unimodal_monitor.denoisers.base import Denoiser, device_of
from unimodal_monitor.forward.noise import unit_noise

NUM_PAIRS = 16  # closest pairs that an audit keeps


@dataclass(frozen=True)
class Pair:
    """The numbers of a sample and of its nearest training image, and whether that one is nearest as its mirror image.

    Distances are l2 over all pixels and channels, in data units; `distinct_distance` is that of the sample to the
    nearest training image that shows another picture.
    """

    sample: int
    training: int
    is_flipped: bool
    distance: float
    distinct_distance: float

    @property
    def ratio(self) -> float:
        """`distance / distinct_distance`; 1 where both are zero."""
        return self.distance / self.distinct_distance if self.distinct_distance > 0 else 1.0

    @property
    def is_copy(self) -> bool:
        """Whether the ratio is under 1/3."""
        return self.ratio < THIRD


@dataclass(frozen=True)
class Audit:
    """How many samples of a network are copies of training images.

    A sample is a copy if its nearest training image is nearer than a third of the distance to the nearest one that
    shows another picture: the 1/3 rule, with near-duplicates skipped (`distinct_distances`). Crops, shifts and changes
    of colour are not recognized. No copy among n samples does not mean that the network copies nothing: the upper limit
    of the interval is then about 3.7 / n.

    Source: Yoon et al. 2023 (openreview.net/forum?id=shciCbSk9h) for the plain rule.

    >>> images = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> audit = audit_samples(torch.cat([images[4:5].flip(-1), images[:2].mean(0, keepdim=True)]), images)
    >>> audit.fraction, audit.pairs[0].training, audit.pairs[0].is_flipped
    (0.5, 4, True)
    """

    num_samples: int
    num_copies: int
    num_copies_third: int  # by the plain 1/3 rule, which does not skip near-duplicates
    interval: tuple[float, float]  # exact 95 % confidence limits (Clopper-Pearson) of the fraction of copies
    pairs: tuple[Pair, ...]  # the closest ones, by ascending ratio
    seconds: float  # of drawing and comparing
    num_forwards: int  # inputs passed through the network
    samples: Tensor | None = field(default=None, compare=False, repr=False)  # (N, ...) on the CPU, for figures

    @property
    def fraction(self) -> float:
        """Fraction of the samples that are copies."""
        return self.num_copies / self.num_samples

    def sentence(self) -> str:
        """The count and its confidence limits."""
        verb = "is a copy" if self.num_copies == 1 else "are copies"
        low, high = (100 * limit for limit in self.interval)
        text = f"{self.num_copies} of {self.num_samples} samples {verb} "
        text += f"({100 * self.fraction:.1f} %, 95 % limits {low:.1f} to {high:.1f} %)"
        plain = f"; {self.num_copies_third} by the plain 1/3 rule, which misses copies of duplicated training images"
        return text + plain * (self.num_copies_third != self.num_copies)

    def to_dict(self) -> dict[str, Any]:
        """Primitives for JSON, without the samples."""
        record = asdict(replace(self, samples=None))
        del record["samples"]
        return {**record, "fraction": self.fraction}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Audit":
        """Inverse of `to_dict`."""
        values = {name: value for name, value in record.items() if name != "fraction"}
        low, high = record["interval"]
        return cls(**{**values, "interval": (low, high), "pairs": tuple(Pair(**pair) for pair in record["pairs"])})


def audit_copies(
    denoiser: Denoiser,
    training_images: Tensor,
    *,
    num_samples: int = 300,
    steps: int = 18,
    seed: int = 0,
    batch_size: int = 64,
    max_seconds: float | None = None,
    flips: bool = True,
) -> Audit:
    """Draw samples from the network and count the copies of training images among them.

    Random state and modes of the network are unchanged afterwards.

    Args:
        denoiser: Denoiser to sample from, under its own condition.
        training_images: (M, ...) all training images, see `audit_samples`.
        num_samples: Number of samples. With no copy among 300, the upper limit of the fraction is 1.2 %.
        steps: Number of noise levels of the sampler.
        seed: Seed of the noise; the noise of sample i depends on (seed, i) alone.
        batch_size: Samples per forward.
        max_seconds: Time after which no batch of samples starts, except the first. Comparing comes after.
        flips: Whether mirror images count as copies, see `audit_samples`.

    Raises:
        ValueError: As `audit_samples` and `sampling_sigmas`, or on counts that are not positive; before any forward.
        FloatingPointError: If samples are not finite.

    >>> from unimodal_monitor.denoisers.memorizer import Memorizer
    >>> images = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> print(audit_copies(Memorizer(images), images, num_samples=8).sentence())
    8 of 8 samples are copies (100.0 %, 95 % limits 63.1 to 100.0 %)
    """
    start = time.perf_counter()
    _check_training_images(training_images)
    if min(num_samples, batch_size) < 1:
        raise ValueError(f"need at least 1 sample and 1 per batch, got {num_samples=}, {batch_size=}")
    shape, few = training_images.shape[1:], training_images[:: max(1, len(training_images) // 2000)]
    sigmas = sampling_sigmas(denoiser, std=float(few.float().std()), steps=steps)
    device = device_of(denoiser.network)
    batches = (numbers.tolist() for numbers in torch.split(torch.arange(num_samples), batch_size))
    noises = (unit_noise(numbers, shape, seed=seed).to(device) for numbers in batches)
    samples = draw_samples(denoiser, noises, sigmas, seed=seed, max_seconds=max_seconds)
    audit = audit_samples(samples, training_images, flips=flips, device=device)
    return replace(audit, seconds=time.perf_counter() - start, num_forwards=len(samples) * heun_forwards(sigmas))


def audit_samples(
    samples: Tensor, training_images: Tensor, *, flips: bool = True, device: torch.device | None = None
) -> Audit:
    """Count the copies of training images among samples drawn elsewhere.

    Args:
        samples: (N, ...) in the units of the training images.
        training_images: (M, ...) in model space, M >= 3. All of them: a copy of one that is left out is not found.
        flips: Whether mirror images count as copies, where images have a width.
        device: Device to compare on; None for that of the training images. The CPU replaces MPS, which has no float64.

    Raises:
        ValueError: Without samples, if shapes differ, with fewer than three training images, or with ones that are not
            finite or all equal.
        FloatingPointError: If samples are not finite.
    """
    start = time.perf_counter()
    _check_training_images(training_images)
    if not len(samples):
        raise ValueError("need at least 1 sample, got no samples")
    num_broken = int((~samples.flatten(1).isfinite().all(1)).sum())
    if num_broken:
        raise FloatingPointError(f"{num_broken} of {len(samples)} samples contain NaN or infinite pixels")
    device = device or training_images.device
    distances = Distances(training_images, flips=flips, device=torch.device("cpu") if device.type == "mps" else device)
    nearest = nearest_training_images(samples, distances)
    distinct = distinct_distances(samples, nearest, distances)
    columns = nearest.indices[:, 0], nearest.is_flipped[:, 0], nearest.distances[:, 0], distinct
    pairs = [Pair(i, *row) for i, row in enumerate(zip(*(column.tolist() for column in columns), strict=True))]
    num_copies = sum(pair.is_copy for pair in pairs)
    low, high = binomtest(num_copies, len(samples)).proportion_ci(0.95, method="exact")
    return Audit(
        num_samples=len(samples),
        num_copies=num_copies,
        num_copies_third=int((nearest.distances[:, 0] < THIRD * nearest.distances[:, 1]).sum()),
        interval=(float(low), float(high)),
        pairs=tuple(sorted(pairs, key=lambda pair: pair.ratio)[:NUM_PAIRS]),
        seconds=time.perf_counter() - start,
        num_forwards=0,
        samples=samples.cpu(),
    )


def _check_training_images(images: Tensor) -> None:
    if len(images) < 3:
        raise ValueError(f"need at least 3 training images for the 1/3 rule, got {len(images)}")
    ImageSet(images)
    if bool((images[1:] == images[:1]).all()):
        raise ValueError(f"all {len(images)} training images are equal; need different ones")
