"""The alarm of earlier versions, for comparison: the loss of a rise, or of a peak, is enough by itself."""

from dataclasses import dataclass

from unimodal_monitor import AlarmState
from unimodal_monitor.alarm.rule import Finding, Loss, Record
from unimodal_monitor.signals import Measured


@dataclass(frozen=True)
class LossAlone:
    """A rule that looks at the curve alone."""

    loss: Loss
    share: float = 0.5
    state: AlarmState = AlarmState.MEMORIZING

    def test(self, measured: Measured, reference: Record | None, *, number: int, step: int, alpha: float) -> Finding:
        return self.loss.test(measured, reference, number=number, step=step, alpha=alpha)
