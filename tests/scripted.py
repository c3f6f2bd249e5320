"""A rule that triggers at given steps, for tests of what follows an alarm."""

from dataclasses import dataclass

from unimodal_monitor import Alarm, AlarmState
from unimodal_monitor.alarm.rule import Finding, Record
from unimodal_monitor.signals import Measured


@dataclass(frozen=True)
class TriggeredAt:
    """Has something to compare with from its first check on, and triggers at these steps."""

    steps: tuple[int, ...]
    share: float = 1.0
    state: AlarmState = AlarmState.MEMORIZING

    def test(self, measured: Measured, reference: Record | None, *, number: int, step: int, alpha: float) -> Finding:
        triggered = step in self.steps
        return Finding(triggered, f"step {step} {'is' if triggered else 'is not'} in the script")


def scripted_alarm(*steps: int) -> Alarm:
    """Raised at the second of two such steps in a row."""
    return Alarm(rules=(TriggeredAt(steps),))
