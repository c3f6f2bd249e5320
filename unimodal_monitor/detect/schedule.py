"""Which of the three calling conventions a job's noise schedule stands for."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from unimodal_monitor.denoisers import Denoiser, EDMDenoiser, FlowDenoiser, Prediction, VPDenoiser
from unimodal_monitor.denoisers.base import unwrap
from unimodal_monitor.denoisers.network import forward_parameters
from unimodal_monitor.detect.attributes import is_ema, resolve, walk

Adapter = Callable[..., Denoiser]  # called as adapter(net, weights=..., condition=...)

WORDS: dict[str, Adapter] = {
    "edm": EDMDenoiser,
    "flow": FlowDenoiser,
    "flow:x1000": partial(FlowDenoiser, time_scale=1000.0),
    "flow:data": partial(FlowDenoiser, noise_at=0),
    "flow:data:x1000": partial(FlowDenoiser, noise_at=0, time_scale=1000.0),
}
HINT = (
    "give schedule= the scheduler or its dotted name, or 'edm' (the network takes sigma), 'flow' (velocity, time 1"
    " is noise), 'flow:data' (velocity, time 1 is data), either with ':x1000' (times up to 1000)"
)

PREDICTIONS: dict[str, Prediction] = {  # the words of diffusers, LDM, lucidrains and ADM
    **dict.fromkeys(("epsilon", "eps", "pred_noise"), "epsilon"),
    **dict.fromkeys(("sample", "x0", "pred_x0", "start_x"), "sample"),
    **dict.fromkeys(("v_prediction", "v", "pred_v"), "v_prediction"),
}
PREDICTION_NAMES = ("prediction_type", "parameterization", "objective", "model_mean_type")


def find_adapter(owner: nn.Module, network: nn.Module, *, schedule: object | str | None = None) -> Adapter:
    """The adapter for the job's noise schedule, given as for `find_denoiser`."""
    if isinstance(schedule, str):
        return WORDS.get(schedule) or adapter_of(resolve(owner, schedule, argument="schedule"))
    if schedule is not None:
        return adapter_of(schedule)
    if "sigma" in forward_parameters(network):
        return EDMDenoiser
    adapters = {path: adapter_of(value) for path, value in _schedules(owner, network).items()}
    if len({_fingerprint(adapter) for adapter in adapters.values()}) == 1:
        return next(iter(adapters.values()))
    found = ", ".join(adapters) or "none"
    raise ValueError(f"schedule: the noise schedules found in {type(owner).__name__} are {found}; {HINT}")


def adapter_of(schedule: Any) -> Adapter:
    """The adapter for one object: anything with `alphas_cumprod`, a FlowMatch scheduler, or an adapter itself."""
    if getattr(schedule, "alphas_cumprod", None) is not None:
        alphas_cumprod = torch.as_tensor(schedule.alphas_cumprod).detach().to("cpu", torch.float64, copy=True)
        return partial(VPDenoiser, alphas_cumprod=alphas_cumprod, prediction=prediction_of(schedule))
    if type(schedule).__name__.startswith("FlowMatch"):
        return partial(FlowDenoiser, time_scale=float(schedule.config.num_train_timesteps))
    if callable(schedule) and not isinstance(schedule, nn.Module):
        return cast(Adapter, schedule)
    raise ValueError(f"schedule is of type {type(schedule).__name__}, whose noise levels are not known; {HINT}")


def prediction_of(schedule: Any) -> Prediction:
    """The network's prediction according to its schedule; the noise, if the schedule has no such attribute."""
    holders = [(getattr(schedule, "config", None), "prediction_type"), *((schedule, name) for name in PREDICTION_NAMES)]
    values = (getattr(holder, name, None) for holder, name in holders)
    value = next((value for value in values if value is not None), "epsilon")
    word = getattr(value, "value", value) if isinstance(value, str) else getattr(value, "name", value)
    prediction = PREDICTIONS.get(str(word).lower())
    if prediction is None:
        words = ", ".join(PREDICTIONS)
        raise ValueError(f"schedule: the network's prediction is {value!r}; need one of {words}, or {HINT}")
    return prediction


def _schedules(owner: nn.Module, network: nn.Module) -> dict[str, object]:
    def is_schedule(value: object) -> bool:
        has_alphas = isinstance(getattr(value, "alphas_cumprod", None), torch.Tensor | np.ndarray)
        return has_alphas or (type(value).__name__.startswith("FlowMatch") and hasattr(value, "config"))

    def stop(path: str, value: object) -> bool:
        return is_ema(path, value) or (isinstance(value, nn.Module) and unwrap(value) is network)

    found = {path: value for path, value in walk(owner, stop=stop) if is_schedule(value) and not stop(path, value)}
    return {"the module itself": owner, **found} if is_schedule(owner) else found


def _fingerprint(adapter: Adapter) -> tuple[object, ...]:
    """Equal for equivalent schedules, such as a DDPM scheduler for training and a DDIM one for sampling."""
    keywords = getattr(adapter, "keywords", {})
    values = (value.numpy().tobytes() if isinstance(value, torch.Tensor) else value for value in keywords.values())
    return getattr(adapter, "func", adapter), *values
