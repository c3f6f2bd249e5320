"""Audit: how many of a network's samples are copies, and how sure that is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from scipy.stats import beta
from torch import Tensor

from unimodal_monitor.copies.duplicates import THIRD


@dataclass(frozen=True)
class Pair:
    """A sample and the training image nearest to it.

    Args:
        sample: number of the sample.
        training: number of the training image.
        is_flipped: whether its mirror image is the one that is near.
        distance: l2 over all pixels and channels, in data units.
        distinct_distance: from the sample to the nearest training image that shows another picture.
    """

    sample: int
    training: int
    is_flipped: bool
    distance: float
    distinct_distance: float

    @property
    def ratio(self) -> float:
        """Of the two distances; 1 where both are zero."""
        return self.distance / self.distinct_distance if self.distinct_distance > 0 else 1.0

    @property
    def is_copy(self) -> bool:
        """By the 1/3 rule."""
        return self.ratio < THIRD


@dataclass(frozen=True)
class Audit:
    """How many of a network's samples are copies of training images.

    A sample is a copy if its nearest training image is nearer than a third of the distance to the nearest one that
    shows another picture (the 1/3 rule, near-duplicates aside; see `distinct_distances`). No copies among n samples
    does not mean that the network copies nothing: the interval's upper end, about 3.7 / n, says what it can miss.
    Copies that are cropped, shifted or recoloured are not seen.

    Args:
        num_samples: that were drawn.
        num_copies: of them.
        num_copies_third: by the plain rule, which compares with the second nearest training image, whatever it shows.
        interval: exact 95 % limits (Clopper and Pearson) of the fraction of copies that this network makes.
        pairs: the closest, by ratio, ascending.
        seconds: that sampling and comparing took.
        num_forwards: images that went through the network.
        samples: (N, ...) on the CPU; not part of the record, kept for figures.

    Source: Yoon et al. 2023 (openreview.net/forum?id=shciCbSk9h) for the plain rule.
    """

    num_samples: int
    num_copies: int
    num_copies_third: int
    interval: tuple[float, float]
    pairs: tuple[Pair, ...]
    seconds: float
    num_forwards: int
    samples: Tensor | None = field(default=None, compare=False, repr=False)

    @property
    def fraction(self) -> float:
        """Of the samples that are copies."""
        return self.num_copies / self.num_samples

    def sentence(self) -> str:
        """The count and its limits in plain words."""
        verb = "is a copy" if self.num_copies == 1 else "are copies"
        low, high = (100 * limit for limit in self.interval)
        text = f"{self.num_copies} of {self.num_samples} samples {verb}"
        text += f" ({100 * self.fraction:.1f} %, 95 % limits {low:.1f} to {high:.1f} %)"
        if self.num_copies_third == self.num_copies:
            return text
        return f"{text}; {self.num_copies_third} by the plain 1/3 rule, to which duplicated training images are blind"

    def to_dict(self) -> dict[str, Any]:
        """Primitives only, for JSON; without the samples."""
        names = ("num_samples", "num_copies", "num_copies_third", "fraction", "seconds", "num_forwards")
        record = {name: getattr(self, name) for name in names}
        return {**record, "interval": list(self.interval), "pairs": [asdict(pair) for pair in self.pairs]}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Audit":
        """Inverse of `to_dict`, but for the samples."""
        values = {name: value for name, value in record.items() if name != "fraction"}
        low, high = record["interval"]
        return cls(**{**values, "interval": (low, high), "pairs": tuple(Pair(**pair) for pair in record["pairs"])})


def clopper_pearson(num_hits: int, num_trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Exact limits of a binomial fraction: never [0, 0], never [1, 1].

    Source: Clopper and Pearson 1934 (Biometrika 26).
    """
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, num_hits, num_trials - num_hits + 1) if num_hits else 0.0
    high = beta.isf(tail, num_hits + 1, num_trials - num_hits) if num_hits < num_trials else 1.0
    return float(low), float(high)
