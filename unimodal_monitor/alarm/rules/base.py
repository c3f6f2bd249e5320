"""The contract of a rule: what may raise the alarm. It takes in checks and keeps to the error it is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from scipy.stats import t as student

from unimodal_monitor.signals.gap import Pairs
from unimodal_monitor.stats.estimate import Curve
from unimodal_monitor.stats.paired import Reference, standard_errors, surely_under


@dataclass(frozen=True, eq=False)
class Look:
    """One check as a rule sees it.

    Args:
        number: of the check in the run, from 1.
        step: of the training.
        curve: that is judged.
        score_KM: (K, M) the probe's score of every held-out image, the same images at every check.
        glance_KM: (K, M') the score as a glance measures it; None where no glances are made.
        pairs: what the denoising gap rests on; None where it was not measured or cannot be trusted.
        cleanliness_KN: (K, N) 1 - ICR of the features of held-out images with two views, image by image; None where it
            was not measured.
    """

    number: int
    step: int
    curve: Curve
    score_KM: np.ndarray
    glance_KM: np.ndarray | None = None
    pairs: Pairs | None = None
    cleanliness_KN: np.ndarray | None = None


@dataclass(frozen=True)
class Forecast:
    """What a full check would find, as far as a glance tells.

    Args:
        loses: it may find that what the rule guards is lost.
        establishes: it may establish something to guard.
        grows: what is guarded is surely much more than it was, so that its reference is out of date.
        sentence: how things stand.
    """

    loses: bool
    establishes: bool
    grows: bool
    sentence: str


@dataclass(frozen=True)
class Terms:
    """How a glance may say what a full check would find.

    Args:
        fraction: of the full check's held-out images that the glance has seen.
        check_error: what the full check could spend, see `Rule.look`.
        error: chance of ruling out what it would find.
    """

    fraction: float
    check_error: float
    error: float


@dataclass(frozen=True)
class Finding:
    """What a rule says of one check.

    Args:
        holds: the rule speaks: what it guards is surely lost.
        is_established: there is something to lose.
        reaches: this check would establish it anew.
        sentence: the evidence.
        note: what else is worth telling while the rule does not speak.
    """

    holds: bool
    is_established: bool
    reaches: bool
    sentence: str
    note: str = ""


class Rule(Protocol):
    """What may raise the alarm.

    The union of all its false statements over a run has at most the probability that it is given: `error` at
    each check, for every comparison that this check could make.
    """

    share: float
    """Of the alarm's significance, 0 to 1."""

    def look(self, look: Look, *, error: float) -> Finding:
        """Take in one check; `error` is what it may spend."""
        ...

    def forecast(self, look: Look, terms: Terms) -> Forecast | None:
        """What a full check would find, from the levels and images of a glance; None: that is left to full checks."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Primitives only."""
        ...

    def load_state_dict(self, record: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        ...


@dataclass
class BestSoFar:
    """A rule that keeps the best check and compares every later one with it."""

    reference: Reference | None = field(default=None, init=False)

    def state_dict(self) -> dict[str, Any]:
        """Primitives only."""
        return {"reference": None if self.reference is None else self.reference.to_dict()}

    def load_state_dict(self, record: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.reference = None if record["reference"] is None else Reference.from_dict(record["reference"])

    def _is_under(self, values_KM: np.ndarray, mark: float, number: int, error: float) -> bool:
        """Whether all are surely under `mark` times the reference, which may be any level of any earlier check."""
        if self.reference is None:
            return False
        if len(self.reference.values_M) != values_KM.shape[1]:
            raise ValueError(
                f"the best check so far was of {len(self.reference.values_M)} images, this one is of "
                f"{values_KM.shape[1]}; use the same probe set, or start without the saved state"
            )
        candidates = len(values_KM) * (number - 1)
        reference_M = mark * np.array(self.reference.values_M)
        return surely_under(values_KM, reference_M, error=error / candidates)

    def forecast(self, look: Look, terms: Terms) -> Forecast | None:
        """See `Rule`."""
        return None

    def _keep_best(self, look: Look, values_KM: np.ndarray, limit_K: np.ndarray, first_level: int) -> bool:
        """Whether this check is the new reference."""
        best = int(limit_K.argmax())
        if self.reference is not None and limit_K[best] <= self.reference.limit:
            return False
        sigma = look.curve.sigmas[first_level + best]
        values_M = tuple(values_KM[best].tolist())
        self.reference = Reference(look.step, sigma, float(limit_K[best]), values_M)
        return True


def may_exceed(values_KM: np.ndarray, terms: Terms) -> np.ndarray:
    """(K,) whether a full check may find the mean of a row surely above 0, after the first images of it.

    It will find so if its mean exceeds c standard errors of its own. Seen a fraction f of the images, its mean is
    predicted with an error of sqrt(1 - f) of the present standard error, and its own standard error is sqrt(f) of
    that. So it may if mean + (q sqrt(1 - f) - c sqrt(f)) * error > 0.

    Args:
        values_KM: (K, M) of the images seen.
        terms: `check_error` of one row and `error` of one row.

    Source: stochastic curtailment, Lan, Simon and Halperin 1982, with the effect as estimated.
    """
    num = values_KM.shape[1]
    critical = student.isf(terms.check_error, num / terms.fraction - 1)
    quantile = student.isf(terms.error, num - 1)
    reach = quantile * (1 - terms.fraction) ** 0.5 - critical * terms.fraction**0.5
    return values_KM.mean(1) + reach * standard_errors(values_KM) > 0


def check_share(share: float) -> None:
    """Raise a ValueError unless it is a part of the alarm's significance."""
    if not 0 < share <= 1:
        raise ValueError(f"share = {share}; it is a part of the alarm's significance, 0 to 1")
