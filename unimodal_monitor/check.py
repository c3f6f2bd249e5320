"""Check: all that one look at the network has found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unimodal_monitor.alarm.alarm import AlarmState
from unimodal_monitor.copies.audit import Audit
from unimodal_monitor.stats.estimate import Curve, Outcomes
from unimodal_monitor.stats.verdict import Verdict


@dataclass(frozen=True)
class Check:
    """What was found at one step of the training.

    Args:
        step: of the optimizer, as the training counts.
        curves: one for each layer, in the order of the layers; the last is the one that was judged.
        verdict: on the last curve.
        state: of the alarm after this check.
        evidence: the alarm's state in one sentence.
        weights: "ema" or "raw": which weights were looked at.
        seconds: that the check took.
        num_forwards: inputs that went through the network.
        overhead: seconds of checks per second of training so far in this session; None before any training.
        testimony: what the other witnesses say, as primitives; see `Testimony.to_dict`.
        audit: of the network's samples, where one was made.
        outcomes: image by image, by layer; not part of the record, kept in memory for the last check only.
    """

    step: int
    curves: tuple[Curve, ...]
    verdict: Verdict
    state: AlarmState
    evidence: str
    weights: str
    seconds: float
    num_forwards: int = 0
    overhead: float | None = None
    testimony: Mapping[str, Any] = field(default_factory=dict)
    audit: Audit | None = None
    outcomes: Mapping[str, Outcomes] = field(default_factory=dict, compare=False, repr=False)

    @property
    def curve(self) -> Curve:
        """The curve that was judged."""
        return self.curves[-1]

    def to_dict(self) -> dict[str, Any]:
        """Primitives only, for JSON and for checkpoints."""
        return {
            "step": self.step,
            "state": self.state.value,
            "evidence": self.evidence,
            "verdict": self.verdict.to_dict(),
            "weights": self.weights,
            "seconds": self.seconds,
            "num_forwards": self.num_forwards,
            "overhead": self.overhead,
            "testimony": dict(self.testimony),
            "audit": None if self.audit is None else self.audit.to_dict(),
            "curves": [curve.to_dict() for curve in self.curves],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Check":
        """Inverse of `to_dict`."""
        return cls(
            step=record["step"],
            curves=tuple(Curve.from_dict(curve) for curve in record["curves"]),
            verdict=Verdict.from_dict(record["verdict"]),
            state=AlarmState(record["state"]),
            evidence=record["evidence"],
            weights=record["weights"],
            seconds=record["seconds"],
            num_forwards=record.get("num_forwards", 0),
            overhead=record.get("overhead"),
            testimony=record.get("testimony", {}),
            audit=None if record.get("audit") is None else Audit.from_dict(record["audit"]),
        )
