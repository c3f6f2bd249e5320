"""Know, while a diffusion model trains, when it stops generalizing and starts to memorize."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from unimodal_monitor.alarm.alarm import Alarm
from unimodal_monitor.alarm.losses import PeakFell, RiseLost
from unimodal_monitor.alarm.rule import Loss, Rule
from unimodal_monitor.alarm.rules import AdvantageGrew, GapOpened
from unimodal_monitor.alarm.state import AlarmState
from unimodal_monitor.check import Check
from unimodal_monitor.copies.audit import audit_copies
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.denoisers.edm import EDMDenoiser
from unimodal_monitor.denoisers.flow import FlowDenoiser
from unimodal_monitor.denoisers.path import PathDenoiser
from unimodal_monitor.denoisers.vp import VPDenoiser
from unimodal_monitor.detect.find import find_denoiser
from unimodal_monitor.monitor import Monitor
from unimodal_monitor.probes.logistic import LogisticProbe
from unimodal_monitor.probes.ridge import RidgeProbe
from unimodal_monitor.report.base import Reporter
from unimodal_monitor.report.jsonl import read_checks
from unimodal_monitor.report.plot_copies import plot_copies
from unimodal_monitor.report.plot_curve import plot_curve
from unimodal_monitor.report.plot_evidence import plot_evidence
from unimodal_monitor.report.plot_history import plot_history
from unimodal_monitor.stats.estimate import Curve
from unimodal_monitor.stats.verdict import Shape, Verdict, judge

if TYPE_CHECKING:
    from unimodal_monitor.callback import UnimodalMonitor

__version__ = version("unimodal-monitor")

__all__ = [  # in the order of the data
    "ProbeSet",
    "UnimodalMonitor",
    "Monitor",
    "find_denoiser",
    "Denoiser",
    "EDMDenoiser",
    "VPDenoiser",
    "FlowDenoiser",
    "PathDenoiser",
    "RidgeProbe",
    "LogisticProbe",
    "Curve",
    "Shape",
    "Verdict",
    "judge",
    "Alarm",
    "AlarmState",
    "Rule",
    "AdvantageGrew",
    "GapOpened",
    "Loss",
    "RiseLost",
    "PeakFell",
    "Check",
    "audit_copies",
    "read_checks",
    "Reporter",
    "plot_curve",
    "plot_history",
    "plot_evidence",
    "plot_copies",
]


def __getattr__(name: str) -> Any:
    """Load the Lightning callback when it is asked for: Lightning takes seconds to import."""
    if name == "UnimodalMonitor":
        from unimodal_monitor.callback import UnimodalMonitor

        return UnimodalMonitor
    raise AttributeError(f"module 'unimodal_monitor' has no attribute {name!r}")
