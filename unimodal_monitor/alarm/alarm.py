"""Alarm: checks in time become a state. Pure: memory and numbers in, memory and a sentence out."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from unimodal_monitor.alarm.forecast import recalibrated
from unimodal_monitor.alarm.rule import Finding, Record, Rule
from unimodal_monitor.alarm.rules import AdvantageGrew, GapOpened
from unimodal_monitor.alarm.state import AlarmState
from unimodal_monitor.signals.measured import Measured
from unimodal_monitor.stats.estimate import Estimate

MIN_COPIES = 0.001
"""Share of copies that the lower limit of an audit must exceed: a pair that is alike by chance is no copying."""


@dataclass(frozen=True)
class AlarmMemory:
    """What an alarm keeps from one check to the next."""

    state: AlarmState = AlarmState.WARMING_UP
    num_checks: int = 0
    counts: tuple[int, ...] = ()  # tests in a row at which each rule triggered, or, negative, did not
    references: tuple[Record | None, ...] = ()  # what each rule compares later checks with
    copies_offset: float = 0.0  # of the line of expected copies, by the last audit

    def to_dict(self) -> dict[str, Any]:
        """Primitives only."""
        return {**asdict(self), "state": self.state.value}

    @classmethod
    def from_dict(cls, record: Record) -> "AlarmMemory":
        """Inverse of `to_dict`."""
        values = {**record, "state": AlarmState(record["state"])}
        return cls(**{**values, **{name: tuple(values[name]) for name in ("counts", "references")}})


@dataclass(frozen=True)
class Alarm:
    """Takes the state of a rule that triggers at `patience` tests in a row, and leaves it after as many without.

    The probability that a false trigger changes the state at any check of the run, however long, is at most
    `significance`: each rule owns a share of it, spent over the checks by `share_of_check`. That is the error of what
    the rules test, not of "the network does not copy": see docs/statistics.md.

    >>> from unimodal_monitor import Alarm, AdvantageGrew, GapOpened
    >>> Alarm(rules=[AdvantageGrew(min_growth=0.05), GapOpened(0.3)], significance=0.01).patience
    2

    Args:
        rules: The first says whether there is something to compare with. By default the growth of the members'
            advantage is the onset; the gap confirmed by the features, or a gap over a half, is memorizing. No rule
            looks at the curve alone: it may lose its rise in a run that cannot memorize.
        significance: Type-I error over the whole run and all rules, 0 to 1.
        patience: Tests in a row at which a rule must trigger, against a passing dip of the network.
        planned_checks: Number of checks that the run may well have; see `share_of_check`.

    Raises:
        ValueError: If an argument is out of range or the rules' shares exceed one.
    """

    rules: Sequence[Rule] = field(default_factory=lambda: (AdvantageGrew(), GapOpened.confirmed(), GapOpened()))
    significance: float = 0.05
    patience: int = 2
    planned_checks: int = 200

    def __post_init__(self) -> None:
        for name in ("patience", "planned_checks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}; must be a number of checks, from 1")
        if not 0 < self.significance < 1:
            raise ValueError(f"significance = {self.significance}; must lie between 0 and 1")
        if not self.rules or any(isinstance(rule, type) for rule in self.rules):
            raise ValueError("rules must hold at least one rule, each made by a call, such as AdvantageGrew()")
        shares = [rule.share for rule in self.rules]
        if sum(shares) > 1 + 1e-9:
            raise ValueError(f"the rules' shares {shares} of the significance sum to more than one")

    def update(
        self, memory: AlarmMemory, measured: Measured, *, step: int
    ) -> tuple[AlarmMemory, str, tuple[Estimate, ...]]:
        """The memory after one more check, the state's evidence in one sentence, and what the rules estimated."""
        number = memory.num_checks + 1
        alpha = self.significance * share_of_check(number, planned=self.planned_checks)
        references, before = memory.references or (None,) * len(self.rules), memory.counts or (0,) * len(self.rules)
        findings = [
            rule.test(measured, reference, number=number, step=step, alpha=rule.share * alpha)
            for rule, reference in zip(self.rules, references, strict=True)
        ]
        counts = tuple(_count(old, found) for old, found in zip(before, findings, strict=True))
        state = self._next_state(memory.state, counts, findings[0].is_ready)
        kept = tuple(found.reference for found in findings)
        updated = replace(memory, state=state, num_checks=number, counts=counts, references=kept)
        estimates = {found.estimate.name: found.estimate for found in findings if found.estimate is not None}
        return updated, self._explain(updated, findings), tuple(estimates.values())

    def after_audit(
        self, memory: AlarmMemory, *, gap: float | None, copies: tuple[int, int], at_least: float
    ) -> AlarmMemory:
        """COPYING where the lower limit of the copies' share is over `MIN_COPIES`; an audit without any ends it.

        `copies` are their number and that of the samples. With the normalized gap of the same network they recalibrate
        the copies that are expected.
        """
        if gap is not None and 0 < gap < 1:
            memory = replace(memory, copies_offset=recalibrated(gap, *copies))
        if at_least > MIN_COPIES:
            return replace(memory, state=AlarmState.COPYING)
        if memory.state is not AlarmState.COPYING or copies[0]:
            return memory
        return replace(memory, state=self._next_state(AlarmState.GENERALIZING, memory.counts, True))

    def _next_state(self, before: AlarmState, counts: Sequence[int], is_ready: bool) -> AlarmState:
        if before is AlarmState.COPYING:
            return before
        states = [AlarmState.GENERALIZING if is_ready or before > AlarmState.WARMING_UP else AlarmState.WARMING_UP]
        for rule, count in zip(self.rules, counts, strict=True):
            is_held = before >= rule.state and count > -self.patience and count != 0
            if count >= self.patience or is_held:
                states.append(rule.state)
        return max(states, key=lambda state: state.rank)

    def _explain(self, memory: AlarmMemory, findings: Sequence[Finding]) -> str:
        rows = list(zip(findings, memory.counts, strict=True))
        triggered = [
            f"{found.sentence} ({'at this check' if count == 1 else f'at {count} checks in a row'})"
            for found, count in rows
            if found.triggered
        ]
        sentences = dict.fromkeys(found.sentence for found in findings if found.is_tested or not found.is_ready)
        return "; ".join(triggered or sentences)


def _count(before: int, found: Finding) -> int:
    if not found.is_tested:
        return before
    return max(before, 0) + 1 if found.triggered else min(before, 0) - 1


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
