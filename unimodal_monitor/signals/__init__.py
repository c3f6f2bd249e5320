"""Signals: functions of a check's per-image numbers that return an `Estimate`."""

from unimodal_monitor.signals.gap import denoising_gap, normalized_gap
from unimodal_monitor.signals.invariance import invariance
from unimodal_monitor.signals.measured import Measured, Signal
from unimodal_monitor.signals.membership import members_told_apart, membership_auc, membership_tpr
from unimodal_monitor.signals.shift import find_shift
from unimodal_monitor.signals.spread import spread_auc
from unimodal_monitor.stats.estimate import Estimate, mean_estimate

DEFAULT_SIGNALS: tuple[Signal, ...] = (
    *(normalized_gap, denoising_gap, invariance, spread_auc),
    *(membership_auc, membership_tpr, members_told_apart),
)

__all__ = ["DEFAULT_SIGNALS", "Estimate", "Measured", "Signal", "find_shift", "mean_estimate"]
