"""Reaction: what follows a check, a copy audit and what the user asked for when the alarm is raised."""

from collections.abc import Callable, Sequence
from typing import Any

from unimodal_monitor.alarm.state import AlarmState
from unimodal_monitor.check import Check


class Reaction:
    """When copies are counted, and what happens when the alarm is raised; see `Monitor` for the arguments."""

    def __init__(
        self, on_alarm: str | Callable[[Check], Any], copy_audit: str | int | None, copy_audit_seconds: float
    ) -> None:
        if on_alarm not in ("warn", "stop") and not callable(on_alarm):
            raise ValueError(f"on_alarm = {on_alarm!r}; must be 'warn', 'stop' or a function of the Check")
        is_count = isinstance(copy_audit, int) and not isinstance(copy_audit, bool) and copy_audit > 0
        if copy_audit not in ("confirm", None) and not is_count:
            raise ValueError(f"copy_audit = {copy_audit!r}; must be 'confirm', a number of checks from 1, or None")
        if not copy_audit_seconds >= 0:
            raise ValueError(f"copy_audit_seconds = {copy_audit_seconds}; must be a number of seconds, from 0")
        self.on_alarm = on_alarm
        self.copy_audit = copy_audit
        self.copy_audit_seconds = copy_audit_seconds

    def is_audit_due(self, history: Sequence[Check]) -> bool:
        """Whether copies are to be counted after the last check."""
        if isinstance(self.copy_audit, int):
            return len(history) % self.copy_audit == 0
        return self.copy_audit == "confirm" and is_newly_raised(history)

    def act(self, history: Sequence[Check], *, warn: Callable[[str], None]) -> bool:
        """Do what was asked for, once for each time the alarm is raised; returns whether the training is to stop."""
        if not is_newly_raised(history):
            return False
        check = history[-1]
        if callable(self.on_alarm):
            self.on_alarm(check)
            return False
        stops = self.on_alarm == "stop"
        copies = "" if check.audit is None else f"; {check.audit.sentence()}"
        warn(f"step {check.step}: {check.evidence}{copies}{'; the training stops' if stops else ''}")
        return stops


def is_newly_raised(history: Sequence[Check]) -> bool:
    """Whether the last check raised the alarm."""
    return history[-1].state is AlarmState.RAISED and (len(history) < 2 or history[-2].state is not AlarmState.RAISED)
