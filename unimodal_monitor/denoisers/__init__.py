"""Denoisers: one contract for the three calling conventions, and how to find a job's own."""

from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.denoisers.detect import find_denoiser
from unimodal_monitor.denoisers.edm import EDMDenoiser
from unimodal_monitor.denoisers.flow import FlowDenoiser
from unimodal_monitor.denoisers.network import Network, weights_used
from unimodal_monitor.denoisers.vp import Prediction, VPDenoiser

__all__ = [
    "Denoiser",
    "EDMDenoiser",
    "FlowDenoiser",
    "Network",
    "Prediction",
    "VPDenoiser",
    "find_denoiser",
    "weights_used",
]
