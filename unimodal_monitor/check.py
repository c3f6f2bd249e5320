"""Check: the record of one measurement of the network. The only record that is saved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from unimodal_monitor.alarm.alarm import Alarm, AlarmMemory
from unimodal_monitor.alarm.forecast import Forecast, expected_copies, forecast
from unimodal_monitor.alarm.state import AlarmState
from unimodal_monitor.copies.audit import Audit
from unimodal_monitor.signals.growth import is_trained
from unimodal_monitor.signals.measured import Measured, Signal
from unimodal_monitor.stats.estimate import Curve, Estimate, Headline
from unimodal_monitor.stats.verdict import Verdict, judge

SCHEMA = 2  # version of the saved record; another one is refused


@dataclass(frozen=True)
class Check:
    """What was found at one step of the training.

    >>> from unimodal_monitor import Monitor
    >>> check = Monitor(net, probe_set, layer="blocks.1", reporters=()).check(0)
    >>> check.state.value, [signal.name for signal in check.signals][:3]
    ('warming up', ['normalized_gap', 'denoising_gap', 'invariance'])
    >>> Check.from_dict(check.to_dict()) == check
    True

    Args:
        step: Optimizer step, as the training counts.
        curves: A curve for each layer; the last one was judged.
        verdict: Shape of the judged curve.
        state: State of the alarm after this check.
        evidence: Evidence for the state in one sentence.
        weights: Which weights were measured, "ema" or "raw".
        seconds: Duration of the check.
        num_forwards: Inputs that went through the network.
        overhead: Seconds of checks per second of training so far in this session; None before any training.
        signals: Estimates of all other signals.
        missing: Reasons why a signal was not measured, by name.
        audit: Copies among the network's samples, where they were counted.
        measured: Per-image numbers; not saved, and kept in memory for the last check only.
    """

    step: int
    curves: tuple[Curve, ...]
    verdict: Verdict
    state: AlarmState
    evidence: str
    weights: str = "raw"
    seconds: float = 0.0
    num_forwards: int = 0
    overhead: float | None = None
    signals: tuple[Estimate, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    audit: Audit | None = None
    measured: Measured | None = field(default=None, compare=False, repr=False)

    @property
    def curve(self) -> Curve:
        """The curve that was judged."""
        return self.curves[-1]

    def signal(self, name: str) -> Estimate | None:
        """The estimate of this name; None where it was not measured."""
        return next((estimate for estimate in self.signals if estimate.name == name), None)

    @property
    def gap(self) -> Headline | None:
        """The normalized gap at its clearest level; None where it was not measured, or cannot be trusted."""
        found = self.signal("normalized_gap")
        return None if found is None or found.note else found.headline

    @property
    def caution(self) -> str:
        """ "not verified (reason)" where the training steps did not confirm what is measured; empty otherwise."""
        return next((reason for reason in self.missing.values() if reason.startswith("not verified")), "")

    def to_dict(self) -> dict[str, Any]:
        """Primitives only, for JSON and for checkpoints."""
        return {
            "schema": SCHEMA,
            "step": self.step,
            "state": self.state.value,
            "evidence": self.evidence,
            "verdict": self.verdict.to_dict(),
            "weights": self.weights,
            "seconds": self.seconds,
            "num_forwards": self.num_forwards,
            "overhead": self.overhead,
            "signals": [estimate.to_dict() for estimate in self.signals],
            "missing": dict(self.missing),
            "audit": None if self.audit is None else self.audit.to_dict(),
            "curves": [curve.to_dict() for curve in self.curves],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Check":
        """Inverse of `to_dict`.

        Raises:
            ValueError: If the record has another schema version.
        """
        if (schema := record.get("schema")) != SCHEMA:
            raise ValueError(f"the record has schema {schema}, this version of unimodal_monitor reads schema {SCHEMA}")
        values = {
            **record,
            "curves": tuple(Curve.from_dict(curve) for curve in record["curves"]),
            "verdict": Verdict.from_dict(record["verdict"]),
            "state": AlarmState(record["state"]),
            "signals": tuple(Estimate.from_dict(estimate) for estimate in record["signals"]),
            "audit": None if record["audit"] is None else Audit.from_dict(record["audit"]),
        }
        return cls(**{name: value for name, value in values.items() if name != "schema"})


def audited(check: Check, audit: Audit, alarm: Alarm, memory: AlarmMemory) -> tuple[Check, AlarmMemory]:
    """The check with its copies and the state that follows from them, and what the alarm keeps."""
    gap, copies = None if check.gap is None else check.gap.value, (audit.num_copies, audit.num_samples)
    memory = alarm.after_audit(memory, gap=gap, copies=copies, at_least=audit.interval[0])
    return replace(check, audit=audit, state=memory.state), memory


def state_before(history: Sequence[Check]) -> AlarmState:
    """The state of the check before the last one."""
    return history[-2].state if len(history) > 1 else AlarmState.WARMING_UP


def forecast_of(history: Sequence[Check]) -> Forecast | None:
    """When copies are to be expected, in steps, from the normalized gaps so far at the level of the last one."""
    if not history or (last := history[-1].gap) is None:
        return None
    rows = {}
    for check in history:
        found = check.signal("normalized_gap")
        if found is not None and last.sigma in found.sigmas:
            level = found.sigmas.index(last.sigma)
            rows[check.step] = found.value[level], found.low[level]
    steps = sorted(rows)
    values, lows = zip(*(rows[step] for step in steps), strict=True)
    return forecast(steps, values, lows=lows)


def judge_check(
    measured: Measured, signals: Sequence[Signal], alarm: Alarm, memory: AlarmMemory, *, step: int
) -> tuple[Check, AlarmMemory]:
    """What is made of a check's numbers, and what the alarm keeps; changes nothing.

    A signal that fails is missing with its reason, and takes nothing else with it. The alarm leaves out the network of
    step 0, unless that was trained before.
    """
    curves = curves_of(measured)
    verdict, missing = judge(curves[-1]), dict(measured.missing)
    estimates: dict[str, Estimate] = {}
    for signal in signals:
        try:
            estimate = signal(measured)
            if not isinstance(estimate, Estimate | None):
                raise TypeError(f"a signal returns an Estimate or None, got {type(estimate).__name__}")
            if estimate is not None and estimates.setdefault(estimate.name, estimate) is not estimate:
                raise ValueError(f"two signals are called {estimate.name!r}")
        except Exception as error:
            missing[getattr(signal, "__name__", repr(signal))] = str(error) or repr(error)
    found, evidence = memory, "no check of a trained network yet"
    if step > 0 or is_trained(measured):
        found, evidence, of_rules = alarm.update(memory, measured, step=step)
        estimates |= {estimate.name: estimate for estimate in of_rules}
    gap = estimates.get("normalized_gap")
    if gap is not None and gap.headline is not None and not gap.note:
        share, low, high = expected_copies(gap.headline.value, offset=memory.copies_offset)
        label, sigmas = "copies expected (share of samples)", (gap.headline.sigma,)
        estimates["copies_expected"] = Estimate("copies_expected", label, sigmas, (share,), (low,), (high,))
    known = tuple(estimates.values())
    return Check(step, curves, verdict, found.state, evidence, signals=known, missing=missing, measured=measured), found


def curves_of(measured: Measured) -> tuple[Curve, ...]:
    """A curve of each layer; without labels the one of the invariance."""
    name, scores = measured.score_name, measured.score
    if not scores:
        name, scores = "invariance (1 - ICR)", {measured.layers[-1]: torch.from_numpy(measured.judged_score)}
    sigmas, std, correct = measured.sigmas, measured.data_std, measured.correct
    return tuple(
        Curve.from_images(layer, sigmas, std, score_KN=scores[layer], score_name=name, correct_KN=correct.get(layer))
        for layer in measured.layers
        if layer in scores
    )
