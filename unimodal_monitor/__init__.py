"""Know, while a diffusion model trains, when it stops generalizing and starts to memorize."""

from typing import TYPE_CHECKING, Any

from unimodal_monitor.alarm.alarm import Alarm, AlarmState
from unimodal_monitor.alarm.rules.both import Both
from unimodal_monitor.alarm.rules.cleanliness import CleanlinessFell
from unimodal_monitor.alarm.rules.gap import GapOpened
from unimodal_monitor.alarm.rules.peak import PeakFell
from unimodal_monitor.alarm.rules.rise import RiseLost
from unimodal_monitor.check import Check
from unimodal_monitor.copies.audit import Audit
from unimodal_monitor.copies.draw import audit_copies, audit_samples
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.denoisers import EDMDenoiser, FlowDenoiser, Network, VPDenoiser
from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.denoisers.memorizer import Memorizer
from unimodal_monitor.forward.noise import karras_sigmas, log_sigmas, paper_sigmas
from unimodal_monitor.glance import Glance
from unimodal_monitor.monitor import Monitor
from unimodal_monitor.probes.logistic import LogisticProbe
from unimodal_monitor.probes.ridge import RidgeProbe
from unimodal_monitor.report.jsonl import read_checks
from unimodal_monitor.signals.class_snr import ClassSNR
from unimodal_monitor.signals.gap import DenoisingGap
from unimodal_monitor.signals.invariance import Contamination
from unimodal_monitor.signals.spread import Spikiness
from unimodal_monitor.stats.estimate import Curve
from unimodal_monitor.stats.verdict import Shape, Verdict, judge

if TYPE_CHECKING:
    from unimodal_monitor.callback import UnimodalMonitor

__version__ = "0.1.0"

__all__ = [  # in the order of the way of the data
    "ProbeSet",
    "karras_sigmas",
    "log_sigmas",
    "paper_sigmas",
    "Denoiser",
    "Network",
    "EDMDenoiser",
    "VPDenoiser",
    "FlowDenoiser",
    "RidgeProbe",
    "LogisticProbe",
    "DenoisingGap",
    "Contamination",
    "Spikiness",
    "ClassSNR",
    "Memorizer",
    "Curve",
    "Shape",
    "Verdict",
    "judge",
    "RiseLost",
    "PeakFell",
    "GapOpened",
    "Both",
    "Alarm",
    "AlarmState",
    "Audit",
    "audit_copies",
    "audit_samples",
    "Check",
    "CleanlinessFell",
    "Glance",
    "Monitor",
    "UnimodalMonitor",
    "read_checks",
]


def __getattr__(name: str) -> Any:
    """Load the Lightning callback when it is asked for: Lightning takes seconds to import."""
    if name == "UnimodalMonitor":
        from unimodal_monitor.callback import UnimodalMonitor

        return UnimodalMonitor
    raise AttributeError(f"module 'unimodal_monitor' has no attribute {name!r}")
