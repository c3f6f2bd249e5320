"""Outcomes: what a probe got right, image by image. Curve: what is kept of them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, eq=False)
class Outcomes:
    """How a probe did on every held-out image, at one step and on one layer.

    Args:
        correct_KRM: (K, R, M) bool: the right class had the highest score, by level, draw and image.
        score_KRM: (K, R, M) float32: the probe's score, more is better, 0 is as good as the class prior.
        score_name: what the score is, with its unit.
    """

    correct_KRM: Tensor
    score_KRM: Tensor
    score_name: str

    def take(self, rows: Tensor) -> "Outcomes":
        """Those of some of the images."""
        return replace(self, correct_KRM=self.correct_KRM[..., rows], score_KRM=self.score_KRM[..., rows])

    def joined(self, others: "Outcomes") -> "Outcomes":
        """With those of further images behind."""
        return replace(
            self,
            correct_KRM=torch.cat([self.correct_KRM, others.correct_KRM], 2),
            score_KRM=torch.cat([self.score_KRM, others.score_KRM], 2),
        )

    @property
    def score_KM(self) -> np.ndarray:
        """(K, M) scores, the draws averaged: an image's draws are not independent."""
        return self.score_KRM.double().mean(1).numpy()


@dataclass(frozen=True)
class Estimate:
    """A quantity at all levels, measured on the same images.

    Args:
        name: of the quantity, with its unit.
        mean: (K,) averages over images and draws.
        covariance: (K, K) of these averages over the choice of images: all that paired tests between
            levels need, for var(a - b) = var a + var b - 2 cov(a, b).
    """

    name: str
    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]

    @classmethod
    def from_images(cls, name: str, values_KRM: Tensor) -> "Estimate":
        """Estimate from (K, R, M) values: draws are averaged first, since an image's draws are not independent.

        Raises:
            FloatingPointError: if a value is not finite.
        """
        values_KM = values_KRM.double().mean(1).cpu().numpy()
        if not np.isfinite(values_KM).all():
            raise FloatingPointError(f"{name} is not finite at {int((~np.isfinite(values_KM)).sum())} places")
        covariance = np.atleast_2d(np.cov(values_KM)) / values_KM.shape[1]
        return cls(name, tuple(values_KM.mean(1).tolist()), tuple(tuple(row) for row in covariance.tolist()))

    @property
    def errors(self) -> tuple[float, ...]:
        """(K,) standard errors."""
        return tuple(math.sqrt(max(row[level], 0.0)) for level, row in enumerate(self.covariance))


@dataclass(frozen=True)
class Curve:
    """Accuracy and score against noise, at one step and on one layer.

    Args:
        layer: dotted name.
        sigmas: (K,) levels, ascending, in data units.
        data_std: standard deviation of the data, the natural unit of `sigmas`.
        num_images: M, held-out images scored.
        accuracy: share of images predicted right, 0 to 1; None without labels.
        score: mean score of the probe: the same rise with a fraction of the standard error. Without labels, the
            cleanliness of the features.
    """

    layer: str
    sigmas: tuple[float, ...]
    data_std: float
    num_images: int
    accuracy: Estimate | None
    score: Estimate

    @classmethod
    def from_outcomes(cls, layer: str, sigmas: Tensor, data_std: float, outcomes: Outcomes) -> "Curve":
        """Average the outcomes over images."""
        return cls(
            layer=layer,
            sigmas=tuple(sigmas.tolist()),
            data_std=data_std,
            num_images=outcomes.correct_KRM.shape[2],
            accuracy=Estimate.from_images("accuracy", outcomes.correct_KRM),
            score=Estimate.from_images(outcomes.score_name, outcomes.score_KRM),
        )

    @classmethod
    def without_labels(cls, layer: str, sigmas: Tensor, data_std: float, cleanliness_KM: Tensor) -> "Curve":
        """Average the cleanliness of the features over (M,) images, see `ICR`."""
        score = Estimate.from_images("cleanliness (1 - ICR)", cleanliness_KM.unsqueeze(1))
        return cls(layer, tuple(sigmas.tolist()), data_std, cleanliness_KM.shape[1], accuracy=None, score=score)

    @property
    def peak_accuracy(self) -> float | None:
        """The highest of all levels; None without labels."""
        return None if self.accuracy is None else max(self.accuracy.mean)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Curve":
        """Inverse of `to_dict`."""
        parts = {name: record[name] and _estimate(record[name]) for name in ("accuracy", "score")}
        return cls(**{**record, **parts, "sigmas": tuple(record["sigmas"])})

    def to_dict(self) -> dict[str, Any]:
        """Primitives only, for JSON and for checkpoints."""
        return asdict(self)

    def sparkline(self) -> str:
        """The score curve as one character for each level, lowest noise first."""
        low, high = min(self.score.mean), max(self.score.mean)
        span = (high - low) or 1.0
        return "".join(BLOCKS[round((value - low) / span * (len(BLOCKS) - 1))] for value in self.score.mean)


def _estimate(record: Mapping[str, Any]) -> Estimate:
    covariance = tuple(tuple(row) for row in record["covariance"])
    return Estimate(record["name"], tuple(record["mean"]), covariance)
