"""The contract of a rule: what may raise the alarm. A test of one check against an earlier one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from unimodal_monitor.signals.measured import Measured
from unimodal_monitor.stats.paired import p_value_all_below


@dataclass(frozen=True)
class Reference:
    """What a later check is compared with: a value of an earlier one, image by image."""

    step: int  # of the earlier check
    sigma: float  # noise level of the value, in data units
    limit: float  # lower confidence limit of its mean; a reference gives way to one with a higher limit
    values: tuple[float, ...]  # (M,) of the held-out images
    height: float = 1.0  # value of the curve at its low-noise end then, the unit in which a rise is reported

    @property
    def mean(self) -> float:
        """Mean over the images."""
        return float(np.mean(self.values))

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Reference":
        """From its fields as primitives."""
        return cls(**{**record, "values": tuple(record["values"])})


@dataclass(frozen=True)
class Finding:
    """What a rule found at one check."""

    triggered: bool  # what the rule tests for is significant
    is_established: bool  # there is something to lose
    reaches: bool  # this check alone would establish it
    sentence: str  # the evidence
    note: str = ""  # what else is worth reporting while the rule is not triggered
    reference: Reference | None = None  # what later checks are compared with


class Rule(Protocol):
    """What may raise the alarm: a pure test, whose false triggers over a check have at most the probability `alpha`.

    >>> from unimodal_monitor import GapOpened
    >>> GapOpened(min_gap=0.2).share
    0.5
    """

    @property
    def share(self) -> float:
        """Share of the alarm's significance, 0 to 1."""

    def test(self, measured: Measured, reference: Reference | None, *, number: int, step: int, alpha: float) -> Finding:
        """Test one check.

        Args:
            measured: The check's per-image numbers.
            reference: What this rule returned at the check before, in its finding.
            number: Number of the check in the run, from 1.
            step: Step of the training.
            alpha: Probability of a false trigger that this check may add, for all its comparisons together.
        """
        ...


def check_share(share: float) -> None:
    """Raise a ValueError unless it is a share of the alarm's significance."""
    if not 0 < share <= 1:
        raise ValueError(f"share = {share}; must be a share of the alarm's significance, 0 to 1")


def is_below(values_KM: np.ndarray, reference: Reference | None, mark: float, *, number: int, alpha: float) -> bool:
    """Whether all rows are significantly below `mark` times the reference, which may be any level of any check."""
    if reference is None:
        return False
    if len(reference.values) != values_KM.shape[1]:
        raise ValueError(
            f"the reference is of {len(reference.values)} images, this check of {values_KM.shape[1]}; "
            "use the same probe set, or start without the saved state"
        )
    num_candidates = len(values_KM) * (number - 1)
    return p_value_all_below(values_KM, mark * np.array(reference.values)) < alpha / num_candidates


def better_reference(
    old: Reference | None, sigmas_K: Tensor, values_KM: np.ndarray, limit_K: np.ndarray, *, step: int, height: float
) -> Reference | None:
    """The old reference, or the level of this check with the highest limit where that is higher, and above 0."""
    best = int(limit_K.argmax())
    if limit_K[best] <= (0 if old is None else old.limit):
        return old
    return Reference(step, float(sigmas_K[best]), float(limit_K[best]), tuple(values_KM[best].tolist()), height)
