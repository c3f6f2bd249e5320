"""Alarm: verdicts in time become a state. Pure: numbers in, a state out, no clock and no logger."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from unimodal_monitor.verdict import Shape, Verdict


class AlarmState(Enum):
    """What the verdicts so far amount to."""

    UNARMED = "unarmed"
    """No curve was surely unimodal yet: there is nothing to lose."""
    ARMED = "armed"
    """A rise was established."""
    RAISED = "raised"
    """The established rise is gone."""


@dataclass
class Alarm:
    """Arms on the first surely unimodal curve; is raised when its rise stays lost.

    A check counts as lost when the upper confidence limit of the rise is under `lost_fraction` of the largest
    rise established so far: the same images see both, so this is a change of the network. A rise that comes back
    surely unimodal and over that mark lowers the alarm again.

    Args:
        patience: consecutive lost checks that raise the alarm.
        lost_fraction: of the established rise, 0 to 1.

    Raises:
        ValueError: if an argument is out of range.
    """

    patience: int = 2
    lost_fraction: float = 0.5
    state: AlarmState = field(default=AlarmState.UNARMED, init=False)
    established_rise: float = field(default=0.0, init=False)
    num_lost: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ValueError(f"patience = {self.patience}; it counts checks, from 1")
        if not 0 < self.lost_fraction < 1:
            raise ValueError(f"lost_fraction = {self.lost_fraction}; it lies between 0 and 1")

    def update(self, verdict: Verdict) -> AlarmState:
        """Take in the verdict of one check."""
        mark = self.lost_fraction * self.established_rise
        if verdict.shape is Shape.UNIMODAL and verdict.rise_high >= mark:
            self.established_rise = max(self.established_rise, verdict.rise)
            self.num_lost = 0
            self.state = AlarmState.ARMED
        elif self.state is not AlarmState.UNARMED:
            self.num_lost = self.num_lost + 1 if verdict.rise_high < mark else 0
            if self.num_lost >= self.patience:
                self.state = AlarmState.RAISED
        return self.state

    def explain(self, verdict: Verdict) -> str:
        """One sentence: the state and what it rests on."""
        if self.state is AlarmState.UNARMED:
            return "no surely unimodal curve yet"
        share = verdict.rise / self.established_rise
        if self.state is AlarmState.RAISED and self.num_lost == 0:
            return (
                f"the rise of {self.established_rise:.3g} was lost and is not surely back: it is now {verdict.rise:.3g}"
            )
        if self.state is AlarmState.RAISED:
            return (
                f"the rise was {self.established_rise:.3g} and is now {verdict.rise:.3g}, surely under "
                f"{verdict.rise_high:.3g}: lost for {self.num_lost} checks"
            )
        return f"the rise stands at {share:.0%} of the {self.established_rise:.3g} established"

    def state_dict(self) -> dict[str, Any]:
        """Primitives only."""
        return {"state": self.state.value, "established_rise": self.established_rise, "num_lost": self.num_lost}

    def load_state_dict(self, record: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.state = AlarmState(record["state"])
        self.established_rise = float(record["established_rise"])
        self.num_lost = int(record["num_lost"])
