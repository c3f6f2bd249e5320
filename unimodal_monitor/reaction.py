"""Reaction: what follows a check, a copy audit and what the user asked for when the alarm is raised."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unimodal_monitor.alarm.state import AlarmState
from unimodal_monitor.check import Check, state_before

Action = str | Callable[[Check], Any]
ALARM = AlarmState.MEMORIZING
STATES = (AlarmState.ONSET, ALARM, AlarmState.COPYING)  # that something may follow


class Reaction:
    """When copies are counted, and what happens when the alarm is raised; see `Monitor` for the arguments."""

    def __init__(
        self, on_alarm: Action | Mapping[str, Action], copy_audit: str | int | None, copy_audit_seconds: float
    ) -> None:
        actions = on_alarm if isinstance(on_alarm, Mapping) else {ALARM.value: on_alarm}
        known = {state.value: state for state in STATES}
        for name, action in actions.items():
            if name not in known:
                raise ValueError(f"on_alarm = {on_alarm!r}; the states are {', '.join(map(repr, known))}")
            if action not in ("warn", "stop") and not callable(action):
                raise ValueError(f"on_alarm = {action!r}; must be 'warn', 'stop' or a function of the Check")
        is_count = isinstance(copy_audit, int) and not isinstance(copy_audit, bool) and copy_audit > 0
        if copy_audit not in ("confirm", None) and not is_count:
            raise ValueError(f"copy_audit = {copy_audit!r}; must be 'confirm', a number of checks from 1, or None")
        if not copy_audit_seconds >= 0:
            raise ValueError(f"copy_audit_seconds = {copy_audit_seconds}; must be a number of seconds, from 0")
        self.actions = {known[name]: action for name, action in actions.items()}
        self.copy_audit = copy_audit
        self.copy_audit_seconds = copy_audit_seconds

    def is_audit_due(self, history: Sequence[Check]) -> bool:
        """Whether copies are to be counted after the last check."""
        if isinstance(self.copy_audit, int):
            return len(history) % self.copy_audit == 0
        return self.copy_audit == "confirm" and ALARM in newly_reached(history)

    def act(self, history: Sequence[Check], *, warn: Callable[[str], None]) -> bool:
        """Do what was asked for, once for each time a state is reached; returns whether the training is to stop."""
        asked = [self.actions[state] for state in newly_reached(history) if state in self.actions]
        if not asked:
            return False
        check, action = history[-1], asked[-1]
        if callable(action):
            action(check)
            return False
        stops = action == "stop"
        copies = "" if check.audit is None else f"; {check.audit.sentence()}"
        stopping = " The training stops." if stops else ""
        warn(f"step {check.step}, {check.state.value}: {check.evidence}{copies}. {check.state.advice}{stopping}")
        return stops


def newly_reached(history: Sequence[Check]) -> list[AlarmState]:
    """The states that the last check is in or beyond, and the one before was not, in the order of harm."""
    return [state for state in STATES if history[-1].state >= state > state_before(history)]
