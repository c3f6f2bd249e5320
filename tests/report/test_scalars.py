"""The table of scalar keys."""

import math
from dataclasses import replace

import pytest
from simulated_checks import RUN, SIGNALS, without_labels

from unimodal_monitor.alarm.state import AlarmState
from unimodal_monitor.report.scalars import headline, scalars
from unimodal_monitor.stats.estimate import Estimate

FULL = replace(RUN[2], overhead=0.01)
PLAIN = replace(RUN[2], signals=(), audit=None)


def test_the_headline_has_rise_peak_shape_state_and_cost_and_what_else_was_measured():
    """One value of each signal, copies with their limits, and the overhead."""
    verdict, curve = PLAIN.verdict, PLAIN.curve
    expected = {name: getattr(verdict, name) for name in ("rise", "rise_low", "rise_high", "peak_sigma")}
    expected |= {"peak_score": max(curve.score.mean), "peak_accuracy": curve.peak_accuracy}
    expected |= {"shape": -1.0, "state": 3.0, "seconds": 1.5, "forwards": 0.0}
    assert headline(PLAIN) == {f"unimodal/{name}": value for name, value in expected.items()}
    expected |= {"normalized_gap": 0.3, "invariance": 0.4, "spread_auc": 0.6, "overhead": 0.01}
    expected |= {"copies": 0.07, "copies_low": 0.044, "copies_high": 0.105}
    assert headline(FULL, prefix="raw") == pytest.approx({f"raw/{name}": value for name, value in expected.items()})
    states = [headline(replace(PLAIN, state=state))["unimodal/state"] for state in AlarmState]
    assert states == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_scalars_are_the_headline_and_every_level_of_curve_and_signals():
    """Without labels there is no accuracy."""
    quantities = {signal.name: (signal.sigmas, signal.value) for signal in SIGNALS}
    quantities |= {name: (FULL.curve.sigmas, getattr(FULL.curve, name).mean) for name in ("score", "accuracy")}
    expected = headline(FULL)
    for name, (sigmas, values) in quantities.items():
        expected |= {f"unimodal/{name}/sigma_{sigma:.3g}": value for sigma, value in zip(sigmas, values, strict=True)}
    assert scalars(FULL) == expected
    assert set(scalars(without_labels(FULL))) == {key for key in expected if "accuracy" not in key}


def test_what_is_not_finite_or_was_measured_at_no_level_has_no_key():
    """Loggers and `EarlyStopping` stumble over such values."""
    empty = Estimate("gap", "gap", (), (), (), ())
    assert scalars(replace(PLAIN, signals=(empty,), overhead=math.nan)) == scalars(PLAIN)
