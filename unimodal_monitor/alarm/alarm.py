"""Alarm: checks in time become a state. Pure: memory and numbers in, memory and a sentence out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from unimodal_monitor.alarm.rule import Finding, Reference, Rule
from unimodal_monitor.alarm.rules import GapOpened, PeakFell, RiseLost
from unimodal_monitor.alarm.state import AlarmState
from unimodal_monitor.signals.measured import Measured
from unimodal_monitor.stats.verdict import Shape, Verdict


@dataclass(frozen=True)
class AlarmMemory:
    """What an alarm keeps from one check to the next."""

    state: AlarmState = AlarmState.WARMING_UP
    num_checks: int = 0
    num_triggered: tuple[int, ...] = ()  # checks in a row at which each rule triggered
    references: tuple[Reference | None, ...] = ()  # what each rule compares later checks with

    def to_dict(self) -> dict[str, Any]:
        """Primitives only."""
        return {**asdict(self), "state": self.state.value}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "AlarmMemory":
        """Inverse of `to_dict`."""
        references = tuple(reference and Reference.from_dict(reference) for reference in record["references"])
        return cls(AlarmState(record["state"]), record["num_checks"], tuple(record["num_triggered"]), references)


@dataclass(frozen=True)
class Alarm:
    """Armed by what its first rule establishes; raised when a rule triggers at `patience` checks in a row.

    The probability that a false trigger raises it at any check of the run, however long, is at most `significance`:
    each rule owns a share of it, spent over the checks by `share_of_check`. That is the error of what the rules test,
    not of "the network does not copy". The alarm is lowered by a check that would arm it anew, without a trigger.

    >>> from unimodal_monitor import Alarm, GapOpened, RiseLost
    >>> Alarm(rules=[RiseLost(lost_fraction=0.7), GapOpened()], significance=0.01).patience
    2

    Args:
        rules: Rules, each of which raises the alarm alone; the first one arms it. By default the loss of an
            established rise does, and an open denoising gap together with a fall of the peak or of the invariance.
        significance: Type-I error over the whole run and all rules, 0 to 1.
        patience: Consecutive checks at which a rule must trigger, against a passing dip of the network.
        planned_checks: Number of checks that the run may well have; see `share_of_check`.
        warm_up: Number of checks without anything established after which the state is NEVER_UNIMODAL.

    Raises:
        ValueError: If an argument is out of range or the rules' shares exceed one.
    """

    rules: Sequence[Rule] = field(
        default_factory=lambda: (RiseLost(), PeakFell(), PeakFell("invariance", min_fall=0.005))
    )
    significance: float = 0.05
    patience: int = 2
    planned_checks: int = 50
    warm_up: int = 10

    def __post_init__(self) -> None:
        for name in ("patience", "planned_checks", "warm_up"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}; must be a number of checks, from 1")
        if not 0 < self.significance < 1:
            raise ValueError(f"significance = {self.significance}; must lie between 0 and 1")
        if not self.rules or any(isinstance(rule, type) for rule in self.rules):
            raise ValueError("rules must hold at least one rule, each made by a call, such as RiseLost()")
        shares = [rule.share for rule in self.rules]
        if sum(shares) > 1 + 1e-9:
            raise ValueError(f"the rules' shares {shares} of the significance sum to more than one")

    @classmethod
    def without_labels(cls, *, are_images: bool = True) -> "Alarm":
        """For unlabelled data: raised where the invariance of the features fell and the gap is open.

        The invariance has no hump over noise that could be lost; it falls at all levels where memorization begins.
        It may fall without copies, as one layer's did in a healthy run (benchmarks), and so may a gap open: hence both.

        Args:
            are_images: Whether there are augmentations to make two views of. Where noise alone makes them, as for
                vectors, the invariance does not fall, and an open gap alone raises the alarm.
        """
        if not are_images:
            return cls(rules=(GapOpened(share=1.0),))
        return cls(rules=(PeakFell("invariance", min_fall=0.005, share=1.0),))

    def update(
        self, memory: AlarmMemory, measured: Measured, verdict: Verdict, *, step: int
    ) -> tuple[AlarmMemory, str]:
        """The memory after one more check, and the state's evidence in one sentence."""
        number = memory.num_checks + 1
        alpha = self.significance * share_of_check(number, planned=self.planned_checks)
        references = memory.references or (None,) * len(self.rules)
        counts = memory.num_triggered or (0,) * len(self.rules)
        findings = [
            rule.test(measured, reference, number=number, step=step, alpha=rule.share * alpha)
            for rule, reference in zip(self.rules, references, strict=True)
        ]
        counts = tuple(count + 1 if found.triggered else 0 for count, found in zip(counts, findings, strict=True))
        state = self._next_state(memory.state, number, counts, findings[0])
        updated = AlarmMemory(state, number, counts, tuple(found.reference for found in findings))
        return updated, self._explain(updated, findings, verdict)

    def _next_state(self, before: AlarmState, number: int, counts: Sequence[int], first: Finding) -> AlarmState:
        longest = max(counts)
        if longest >= self.patience or (before is AlarmState.RAISED and (longest or not first.reaches)):
            return AlarmState.RAISED
        if longest:
            return AlarmState.FADING
        if first.is_established:
            return AlarmState.ARMED
        return AlarmState.WARMING_UP if number < self.warm_up else AlarmState.NEVER_UNIMODAL

    def _explain(self, memory: AlarmMemory, findings: Sequence[Finding], verdict: Verdict) -> str:
        triggered = [
            f"{found.sentence} ({'at this check' if count == 1 else f'at {count} checks in a row'})"
            for found, count in zip(findings, memory.num_triggered, strict=True)
            if count
        ]
        first = findings[0].sentence
        if memory.state is AlarmState.NEVER_UNIMODAL:
            text = self._explain_never(memory.num_checks, first, verdict)
        elif memory.state is AlarmState.RAISED and not triggered:
            text = f"not established again: {first}"
        else:
            text = "; ".join(triggered) or first
        for found in findings:
            if found.note not in text:
                text = f"{text}; {found.note}"
        return text

    def _explain_never(self, num_checks: int, first: str, verdict: Verdict) -> str:
        if not isinstance(self.rules[0], RiseLost):
            return f"nothing to lose in {num_checks} checks: {first}"
        if verdict.shape is Shape.MONOTONE:
            return (
                f"never unimodal in {num_checks} checks: classes may be too easy to separate for this test; try finer "
                "classes or an earlier layer. This does not mean that the network does not memorize"
            )
        return (
            f"never unimodal in {num_checks} checks: the rise may be too small for these images; "
            "`unimodal-monitor power` gives the number of images it takes"
        )


def share_of_check(number: int, *, planned: int) -> float:
    """Share of the run's error that may be spent at check `number`; over all checks, without end, it sums to one.

    Half is spread evenly over the planned checks, the other half falls off behind them as 1 / number^2. Whatever the
    dependence between checks, which use the same images, the probability of any error is at most the sum (Bonferroni).

    Args:
        number: Number of the check, from 1.
        planned: Number of checks that the run may well have; a longer run stays correct and loses a little power.

    Source: Alpha spending of Lan and DeMets 1983, as a union bound.
    """
    if number <= planned:
        return 1 / (2 * planned)
    return planned / (2 * number * (number - 1))
