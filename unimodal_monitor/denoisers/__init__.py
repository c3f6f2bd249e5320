"""Denoisers: one contract, `denoiser(noised, sigma) -> denoised`, for every calling convention."""

from unimodal_monitor.denoisers.base import Denoiser, as_denoiser
from unimodal_monitor.denoisers.edm import EDMDenoiser
from unimodal_monitor.denoisers.flow import FlowDenoiser
from unimodal_monitor.denoisers.path import PathDenoiser
from unimodal_monitor.denoisers.vp import Prediction, VPDenoiser

__all__ = ["Denoiser", "EDMDenoiser", "FlowDenoiser", "PathDenoiser", "Prediction", "VPDenoiser", "as_denoiser"]
