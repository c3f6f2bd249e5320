"""Alarm: checks in time become a state. Pure: numbers in, a state out, no clock and no logger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from unimodal_monitor.alarm.rules.base import Finding, Look, Rule, Terms
from unimodal_monitor.alarm.rules.both import Both
from unimodal_monitor.alarm.rules.cleanliness import CleanlinessFell
from unimodal_monitor.alarm.rules.gap import GapOpened
from unimodal_monitor.alarm.rules.peak import PeakFell
from unimodal_monitor.alarm.rules.rise import RiseLost
from unimodal_monitor.alarm.spending import share_of_check
from unimodal_monitor.stats.verdict import Shape, Verdict


class AlarmState(Enum):
    """What the checks so far amount to."""

    WARMING_UP = "warming up"
    """Nothing was established yet, such as a rise: there is nothing to lose."""
    NEVER_UNIMODAL = "never unimodal"
    """Nor was one in many checks; this test may not fit these images."""
    ARMED = "armed"
    """Something was established, such as a rise, and nothing speaks against it."""
    FADING = "fading"
    """A rule that raises the alarm speaks, at too few checks yet."""
    RAISED = "raised"
    """A rule that raises the alarm has spoken at several checks in a row."""


@dataclass
class Alarm:
    """Armed by what a rule establishes, such as a rise; raised when a rule speaks at `patience` checks in a row.

    The probability that a false statement of a rule raises it at any check of the run, however long, is at most
    `significance`: each rule owns a share of it and spends it over the checks (`spending.share_of_check`). What one
    part of a `Both` says alone is told and stands outside of this. The images are the same at
    every check, so comparisons between checks are paired and see small changes; the price is that their errors
    depend on each other, which a union bound allows for. The error that is held is of what the rules say, such as "the
    rise was lost" where it was not, never of "the network does not copy". An alarm is lowered by a check that would
    arm it anew and at which no rule speaks.

    Args:
        rules: each raises the alarm alone. By default the loss of an established rise does, and an open denoising gap
            together with a fall of the peak or of the features' cleanliness.
        watched: rules whose findings are told with the evidence and change no state.
        significance: over the whole run and all rules, 0 to 1.
        patience: consecutive checks at which a rule must speak, against a passing dip of the network.
        planned_checks: that the run may well have; see `share_of_check`.
        warm_up: checks without anything established after which the state says so.

    Raises:
        ValueError: if an argument is out of range or the rules' shares exceed one.
    """

    rules: Sequence[Rule] = field(
        default_factory=lambda: (
            RiseLost(),
            Both(PeakFell(), GapOpened(), share=0.25),
            Both(CleanlinessFell(), GapOpened(), share=0.25),
        )
    )
    watched: Sequence[Rule] = ()
    significance: float = 0.05
    patience: int = 2
    planned_checks: int = 50
    warm_up: int = 10
    state: AlarmState = field(default=AlarmState.WARMING_UP, init=False)
    num_checks: int = field(default=0, init=False)
    num_spoken: list[int] = field(default_factory=list, init=False)
    _findings: list[Finding] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("patience", "planned_checks", "warm_up"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}; it counts checks, from 1")
        if not 0 < self.significance < 1:
            raise ValueError(f"significance = {self.significance}; it lies between 0 and 1")
        if not self.rules:
            raise ValueError("rules is empty; give one rule that raises the alarm, such as RiseLost()")
        shares = [rule.share for rule in self._all_rules]
        if sum(shares) > 1 + 1e-9:
            raise ValueError(f"the rules' shares {shares} of the significance are more than one together")
        self.num_spoken = [0] * len(shares)

    @classmethod
    def without_labels(cls, *, are_images: bool = True) -> "Alarm":
        """For unlabelled data: raised where the cleanliness of the features surely fell and the gap is surely open.

        The cleanliness has no hump over noise that could be lost; it falls at all levels where memorization begins.
        It may fall without copies, as one layer's did in a healthy run (benchmarks), and so may a gap open: hence both.

        Args:
            are_images: with augmentations to make two views of. Where noise alone makes them, as for vectors, the
                cleanliness does not fall, and an open gap alone raises the alarm.
        """
        if not are_images:
            return cls(rules=(GapOpened(share=1.0),))
        return cls(rules=(Both(CleanlinessFell(), GapOpened(), share=1.0, arms=True),))

    def update(self, look: Look) -> AlarmState:
        """Take in one check; its `number` must be that of the alarm, `num_checks + 1`."""
        number = self.num_checks + 1
        spent = self.significance * share_of_check(number, planned=self.planned_checks)
        self._findings = [rule.look(look, error=rule.share * spent) for rule in self._all_rules]
        self.num_checks = number
        self.num_spoken = [
            spoken + 1 if found.holds else 0 for spoken, found in zip(self.num_spoken, self._findings, strict=True)
        ]
        self.state = self._next_state()
        return self.state

    def forecast(self, look: Look, *, fraction: float, error: float) -> str | None:
        """How things stand if a full check would leave the state as it is, judged by a glance; None if it might not.

        A glance neither raises nor arms: the alarm's error is spent by full checks alone, so that it does not grow.
        Rules that forecast nothing, such as `Both`, are left to full checks: what they see may wait for the next one.

        Args:
            look: with the levels and images of the glance, and the number of the full check to come.
            fraction: of the full check's images that it has seen.
            error: chance of saying so where the full check would do otherwise.
        """
        spent = self.significance * share_of_check(look.number, planned=self.planned_checks)
        said = [rule.forecast(look, Terms(fraction, rule.share * spent, error)) for rule in self.rules]
        forecasts = [forecast for forecast in said if forecast is not None]
        if self.state is AlarmState.FADING or not forecasts:
            return None
        if self.state is AlarmState.ARMED:
            changes = any(forecast.loses or forecast.grows for forecast in forecasts)
        else:
            changes = any(forecast.establishes for forecast in forecasts)
        return None if changes else "; ".join(forecast.sentence for forecast in forecasts)

    def explain(self, verdict: Verdict) -> str:
        """The state's evidence in one sentence, after the check that `verdict` is of."""
        if not self._findings:
            return "no check of a trained network yet"
        said = "; ".join([self._why(verdict), *self._spoken(range(len(self.rules), len(self._findings)))])
        for found in self._findings:
            if found.note not in said:
                said = f"{said}; {found.note}"
        return said

    def state_dict(self) -> dict[str, Any]:
        """Primitives only."""
        return {
            "state": self.state.value,
            "num_checks": self.num_checks,
            "num_spoken": list(self.num_spoken),
            "names": [_name(rule) for rule in self._all_rules],
            "rules": [rule.state_dict() for rule in self._all_rules],
        }

    def load_state_dict(self, record: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises:
            ValueError: if it was saved with other rules.
        """
        theirs, ours = record.get("names", ["of an earlier version"]), [_name(rule) for rule in self._all_rules]
        if theirs != ours:
            raise ValueError(f"the saved alarm has the rules {', '.join(theirs)}; this one {', '.join(ours)}")
        self.state = AlarmState(record["state"])
        self.num_checks = int(record["num_checks"])
        self.num_spoken = [int(number) for number in record["num_spoken"]]
        for rule, saved in zip(self._all_rules, record["rules"], strict=True):
            rule.load_state_dict(saved)

    @property
    def _all_rules(self) -> list[Rule]:
        return [*self.rules, *self.watched]

    def _next_state(self) -> AlarmState:
        raising = range(len(self.rules))
        longest = max(self.num_spoken[rule] for rule in raising)
        reaches = any(self._findings[rule].reaches for rule in raising)
        if longest >= self.patience or (self.state is AlarmState.RAISED and (longest or not reaches)):
            return AlarmState.RAISED
        if longest:
            return AlarmState.FADING
        if any(self._findings[rule].is_established for rule in raising):
            return AlarmState.ARMED
        return AlarmState.WARMING_UP if self.num_checks < self.warm_up else AlarmState.NEVER_UNIMODAL

    def _why(self, verdict: Verdict) -> str:
        """What the rules that raise the alarm say."""
        if self.state is AlarmState.NEVER_UNIMODAL:
            return self._why_never(verdict)
        if spoken := self._spoken(range(len(self.rules))):
            return "; ".join(spoken)
        sentence = self._findings[0].sentence
        return f"not surely back: {sentence}" if self.state is AlarmState.RAISED else sentence

    def _spoken(self, rules: range) -> list[str]:
        return [
            f"{self._findings[rule].sentence} ({_times(self.num_spoken[rule])})"
            for rule in rules
            if self.num_spoken[rule]
        ]

    def _why_never(self, verdict: Verdict) -> str:
        if not any(isinstance(rule, RiseLost) for rule in self.rules):
            return f"nothing to lose in {self.num_checks} checks: {self._findings[0].sentence}"
        never = f"never unimodal in {self.num_checks} checks"
        if verdict.shape is Shape.MONOTONE:
            return (
                f"{never}: classes may be too easy to separate for this test; try finer classes or an earlier layer, "
                "and do not take silence for safety"
            )
        return f"{never}: the rise may be too small for these images; `unimodal-monitor power` says how many it takes"


def _name(rule: Rule) -> str:
    """Of its class, and for `Both` of its parts."""
    parts = f"({_name(rule.first)}, {_name(rule.second)})" if isinstance(rule, Both) else ""
    return f"{type(rule).__name__}{parts}"


def _times(number: int) -> str:
    return "at this check" if number == 1 else f"at {number} checks in a row"
