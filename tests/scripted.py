"""A rule that triggers at given steps, for tests of what follows an alarm."""

from dataclasses import dataclass

from unimodal_monitor import Alarm
from unimodal_monitor.alarm.rule import Finding, Reference
from unimodal_monitor.signals import Measured


@dataclass(frozen=True)
class TriggeredAt:
    """Arms at its first check, and triggers at these steps."""

    steps: tuple[int, ...]
    share: float = 1.0

    def test(self, measured: Measured, reference: Reference | None, *, number: int, step: int, alpha: float) -> Finding:
        triggered = step in self.steps
        return Finding(triggered, True, not triggered, f"step {step} {'is' if triggered else 'is not'} in the script")


def scripted_alarm(*steps: int) -> Alarm:
    """Raised at the second of two such steps in a row."""
    return Alarm(rules=(TriggeredAt(steps),))
