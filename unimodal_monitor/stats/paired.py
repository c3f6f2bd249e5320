"""The statistics of change: a check against the best one before it, paired image by image."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student


@dataclass(frozen=True)
class Reference:
    """What a later check is compared with: a value of an earlier one, image by image.

    Args:
        step: of the earlier check.
        sigma: level that the value was taken at, in data units.
        limit: lower confidence limit of its mean; a reference gives way to one with a higher limit.
        values_M: (M,) by held-out image.
        glance_M: (M',) the same as a glance measures it, by the images that it uses; empty where none are made.
    """

    step: int
    sigma: float
    limit: float
    values_M: tuple[float, ...]
    glance_M: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Reference":
        """Inverse of `to_dict`."""
        values = {name: tuple(record[name]) for name in ("values_M", "glance_M")}
        return cls(**{**record, **values})

    def to_dict(self) -> dict[str, Any]:
        """Primitives only."""
        return asdict(self)

    @property
    def mean(self) -> float:
        """Over the images."""
        return float(np.mean(self.values_M))


def lower_limits(values_KM: np.ndarray, *, error: float) -> np.ndarray:
    """(K,) lower confidence limits of the means, each of which fails with probability `error`."""
    return -upper_limits(-values_KM, error=error)


def upper_limits(values_KM: np.ndarray, *, error: float) -> np.ndarray:
    """(K,) upper confidence limits of the means, each of which fails with probability `error`: Student's t.

    Args:
        values_KM: (K, M) by image.
        error: one-sided.
    """
    return values_KM.mean(1) + student.isf(error, values_KM.shape[1] - 1) * standard_errors(values_KM)


def surely_under(values_KM: np.ndarray, reference_M: np.ndarray, *, error: float) -> bool:
    """Whether the mean of every row is under that of the reference, wrong with probability `error` at most.

    "The largest mean is under the mark" is the conjunction of "each is"; a test of all at `error` has that error,
    and owes nothing to their number (intersection-union test, Berger 1982).

    Args:
        values_KM: (K, M) of the later check.
        reference_M: (M,) of the same images at the earlier one, times the fraction that is the mark.
        error: one-sided.
    """
    return p_value_under(values_KM, reference_M) < error


def p_value_under(values_KM: np.ndarray, reference_M: np.ndarray) -> float:
    """Smallest error at which `surely_under` says yes."""
    difference_KM = values_KM - reference_M
    t_K = difference_KM.mean(1) / np.maximum(standard_errors(difference_KM), 1e-300)
    return float(student.cdf(t_K, difference_KM.shape[1] - 1).max())


def standard_errors(values_KM: np.ndarray) -> np.ndarray:
    """(K,) of the means over images."""
    return values_KM.std(1, ddof=1) / values_KM.shape[1] ** 0.5
