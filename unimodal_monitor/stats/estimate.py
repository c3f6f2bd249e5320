"""What is kept of per-image numbers: LevelMeans and Curve for the probe, Estimate for every other signal."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from unimodal_monitor.stats.paired import lower_limits, upper_limits

BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class LevelMeans:
    """Means over the same images at all levels, and their (K, K) covariance over the choice of images.

    Paired tests between levels need no more: var(a - b) = var a + var b - 2 cov(a, b).
    """

    name: str
    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]

    @classmethod
    def from_images(cls, name: str, values_KN: Tensor) -> "LevelMeans":
        """Average (K, N) values over images; a value that is not finite raises a FloatingPointError."""
        values = finite_array(name, values_KN)
        covariance = np.atleast_2d(np.cov(values)) / values.shape[1]
        return cls(name, tuple(values.mean(1).tolist()), tuple(map(tuple, covariance.tolist())))

    @property
    def errors(self) -> tuple[float, ...]:
        """(K,) standard errors."""
        return tuple(np.sqrt(np.diagonal(self.covariance).clip(min=0)).tolist())


@dataclass(frozen=True)
class Curve:
    """Accuracy and score against noise, at one step and on one layer.

    >>> import torch
    >>> values = torch.tensor([[0.1, 0.3, 0.2], [0.4, 0.6, 0.5], [0.2, 0.0, 0.1]])
    >>> curve = Curve.from_images("mid_block", torch.tensor([0.1, 0.2, 0.4]), 0.5, score_KN=values, score_name="gain")
    >>> [round(mean, 3) for mean in curve.score.mean], curve.sparkline()
    ([0.2, 0.5, 0.1], '▃█▁')
    """

    layer: str
    sigmas: tuple[float, ...]  # (K,) noise levels, ascending, in data units
    data_std: float  # standard deviation of the data, the natural unit of `sigmas`
    num_images: int
    accuracy: LevelMeans | None  # share of images classified correctly, 0 to 1; None without labels
    score: LevelMeans  # of the probe: the same rise at a fraction of the error; the features' invariance without labels

    @classmethod
    def from_images(
        cls,
        layer: str,
        sigmas: Tensor,
        data_std: float,
        *,
        score_KN: Tensor,
        score_name: str,
        correct_KN: Tensor | None = None,
    ) -> "Curve":
        """Average (K, N) scores and, with labels, (K, N) correctness over images."""
        accuracy = None if correct_KN is None else LevelMeans.from_images("accuracy", correct_KN)
        score = LevelMeans.from_images(score_name, score_KN)
        return cls(layer, tuple(sigmas.tolist()), data_std, score_KN.shape[1], accuracy, score)

    @property
    def peak_accuracy(self) -> float | None:
        """The highest accuracy of all levels; None without labels."""
        return None if self.accuracy is None else max(self.accuracy.mean)

    def sparkline(self) -> str:
        """The score curve as one character per level, lowest noise first."""
        low, high = min(self.score.mean), max(self.score.mean)
        span = (high - low) or 1.0
        return "".join(BLOCKS[round((value - low) / span * (len(BLOCKS) - 1))] for value in self.score.mean)

    def to_dict(self) -> dict[str, Any]:
        """Primitives only, for JSON and checkpoints."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Curve":
        """Inverse of `to_dict`."""
        fields = _tuples(record)
        means = {name: fields[name] and LevelMeans(**fields[name]) for name in ("accuracy", "score")}
        return cls(**{**fields, **means})


class Headline(NamedTuple):
    """The one number of a signal, with its level and limits."""

    sigma: float
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A signal at some noise levels, with confidence limits for each level on its own.

    >>> Estimate("gap", "gap", sigmas=(0.1, 0.2), value=(0.5, 0.6), low=(0.4, 0.3), high=(0.6, 0.9)).headline
    Headline(sigma=0.1, value=0.5, low=0.4, high=0.6)
    """

    name: str  # identifier, used in scalar keys
    label: str  # text of a plot's axis
    sigmas: tuple[float, ...]  # levels at which the signal is defined, ascending: all of the check's, some, or none
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    neutral: float | None = None  # value without information, such as 0 for a gap and 0.5 for an AUC
    note: str = ""  # caveat in one sentence

    def __post_init__(self) -> None:
        for name in ("sigmas", "value", "low", "high"):
            values = tuple(map(float, getattr(self, name)))
            if not all(map(math.isfinite, values)):
                raise FloatingPointError(f"{name} of {self.name} is not finite")
            object.__setattr__(self, name, values)

    @property
    def headline(self) -> Headline | None:
        """The level with the highest lower limit, the one number that scalars, figures and sentences show."""
        rows = map(Headline, self.sigmas, self.value, self.low, self.high)
        return max(rows, key=lambda row: row.low, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Primitives only, for JSON and checkpoints."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Estimate":
        """Inverse of `to_dict`."""
        return cls(**_tuples(record))


def mean_estimate(
    name: str, label: str, sigmas: Tensor, values_KN: Tensor, *, confidence: float = 0.95, neutral: float | None = None
) -> Estimate:
    """Means over images with Student's limits, level by level; a value not finite raises a FloatingPointError.

    >>> import torch
    >>> mean_estimate("gain", "gain", torch.tensor([0.1]), torch.tensor([[1.0, 2.0, 3.0]])).value
    (2.0,)
    """
    values, error = finite_array(name, values_KN), (1 - confidence) / 2
    low, high = lower_limits(values, error=error).tolist(), upper_limits(values, error=error).tolist()
    value = tuple(values.mean(1).tolist())
    return Estimate(name, label, tuple(sigmas.tolist()), value, tuple(low), tuple(high), neutral)


def finite_array(name: str, values_KN: Tensor) -> np.ndarray:
    """The values as a float64 array; a FloatingPointError that carries the name if one is not finite."""
    values = values_KN.double().cpu().numpy()
    if not np.isfinite(values).all():
        raise FloatingPointError(f"{name} is not finite at {int((~np.isfinite(values)).sum())} places")
    return values


def _tuples(value: Any) -> Any:
    """The record with tuples in place of JSON's lists."""
    if isinstance(value, Mapping):
        return {name: _tuples(part) for name, part in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
