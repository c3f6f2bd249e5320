"""The contract of a rule, which gives the alarm a state: a test of one check against earlier ones."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from unimodal_monitor.alarm.state import AlarmState
from unimodal_monitor.signals.measured import Measured
from unimodal_monitor.stats.estimate import Estimate
from unimodal_monitor.stats.paired import p_value_all_below

Record = Mapping[str, Any]  # of primitives, as a checkpoint keeps it


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

    def to_dict(self) -> Record:
        """Primitives only; `Reference(**record)` reads them."""
        return asdict(self)


@dataclass(frozen=True)
class Finding:
    """What a rule found at one check."""

    triggered: bool  # what the rule tests for is significant
    sentence: str  # the evidence
    reference: Record | None = None  # what later checks are compared with
    is_tested: bool = True  # whether this check has what the rule needs; its count is otherwise left as it is
    is_ready: bool = True  # whether there is something to compare with
    estimate: Estimate | None = None  # what was tested, for loggers and figures


class Loss(Protocol):
    """What may confirm a gap: a pure test of the features, whose false findings have at most the probability `alpha`.

    >>> from unimodal_monitor import RiseLost
    >>> RiseLost(lost_fraction=0.7).min_rise
    0.005
    """

    def test(self, measured: Measured, reference: Record | None, *, number: int, step: int, alpha: float) -> Finding:
        """Test one check, as `Rule.test` does."""
        ...


class Rule(Protocol):
    """What gives the alarm a state: a pure test, whose false triggers at a check have at most the probability `alpha`.

    >>> from unimodal_monitor import GapOpened
    >>> GapOpened(min_gap=0.2).state.value, GapOpened().share
    ('memorizing', 0.2)
    """

    @property
    def share(self) -> float:
        """Share of the alarm's significance, 0 to 1."""

    @property
    def state(self) -> AlarmState:
        """State that the rule gives the alarm."""

    def test(self, measured: Measured, reference: Record | None, *, number: int, step: int, alpha: float) -> Finding:
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
