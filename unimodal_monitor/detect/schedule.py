"""Which of the three calling conventions a job's noise schedule stands for."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.denoisers.edm import EDMDenoiser
from unimodal_monitor.denoisers.flow import FlowDenoiser
from unimodal_monitor.denoisers.network import Network, forward_parameters, unwrap
from unimodal_monitor.denoisers.vp import Prediction, VPDenoiser
from unimodal_monitor.detect.attributes import is_ema, resolve, walk

Adapter = Callable[[Network], Denoiser]

WORDS: dict[str, Adapter] = {
    "edm": EDMDenoiser,
    "flow": FlowDenoiser,
    "flow:x1000": partial(FlowDenoiser, time_scale=1000.0),
    "flow:data": partial(FlowDenoiser, noise_at=0),
    "flow:data:x1000": partial(FlowDenoiser, noise_at=0, time_scale=1000.0),
}
"""What a plain string can say; `flow:data` has time 1 at the data, `x1000` has times up to 1000."""

HINT = (
    "give schedule= the scheduler or its dotted name, or 'edm' (the network takes sigma), 'flow' (velocity, time 1"
    " is noise), 'flow:data' (velocity, time 1 is data), either with ':x1000' (times up to 1000)"
)

PREDICTIONS: dict[str, Prediction] = {
    **dict.fromkeys(("epsilon", "eps", "pred_noise"), cast(Prediction, "epsilon")),
    **dict.fromkeys(("sample", "x0", "pred_x0", "start_x"), cast(Prediction, "sample")),
    **dict.fromkeys(("v_prediction", "v", "pred_v"), cast(Prediction, "v_prediction")),
}
"""The words of diffusers, LDM, lucidrains and ADM."""
PREDICTION_NAMES = ("prediction_type", "parameterization", "objective", "model_mean_type")


def find_adapter(owner: nn.Module, network: nn.Module, *, schedule: object | str | None = None) -> Adapter:
    """From a network to its denoiser, by the job's noise schedule.

    Args:
        owner: the job's module.
        network: the unwrapped network.
        schedule: a scheduler, a word of `WORDS`, a dotted name in the owner, or a function from a `Network` to a
            `Denoiser` (`partial(FlowDenoiser, shift=3.0)`); None to look for it.

    Raises:
        ValueError: if there is no schedule or there are several different ones, or it is of an unknown kind.
    """
    if isinstance(schedule, str):
        return WORDS[schedule] if schedule in WORDS else adapter_of(resolve(owner, schedule, argument="schedule"))
    if schedule is not None:
        return adapter_of(schedule)
    if "sigma" in forward_parameters(network):
        return EDMDenoiser
    adapters = {path: adapter_of(value) for path, value in _schedules(owner, network).items()}
    if len({_fingerprint(adapter) for adapter in adapters.values()}) == 1:
        return next(iter(adapters.values()))
    found = ", ".join(adapters) if adapters else "none"
    raise ValueError(f"schedule: the noise schedules found in {type(owner).__name__} are {found}; {HINT}")


def adapter_of(schedule: Any) -> Adapter:
    """The adapter that one schedule object stands for.

    Raises:
        ValueError: if it has no `alphas_cumprod` and is no FlowMatch scheduler.
    """
    if getattr(schedule, "alphas_cumprod", None) is not None:
        alphas_cumprod = torch.as_tensor(schedule.alphas_cumprod).detach().to("cpu", torch.float64, copy=True)
        return partial(VPDenoiser, alphas_cumprod=alphas_cumprod, prediction=prediction_of(schedule))
    if type(schedule).__name__.startswith("FlowMatch"):
        return partial(FlowDenoiser, time_scale=float(schedule.config.num_train_timesteps))
    if callable(schedule) and not isinstance(schedule, nn.Module):
        return cast(Adapter, schedule)
    raise ValueError(f"schedule is of type {type(schedule).__name__}, whose noise levels are not known; {HINT}")


def prediction_of(schedule: Any) -> Prediction:
    """What a schedule says that the network puts out; the noise, if it says nothing.

    Raises:
        ValueError: if it says something else than noise, clean images or v.
    """
    holders = [(getattr(schedule, "config", None), "prediction_type"), *((schedule, name) for name in PREDICTION_NAMES)]
    values = (getattr(holder, name, None) for holder, name in holders)
    said = next((value for value in values if value is not None), "epsilon")
    word = getattr(said, "value", said) if isinstance(said, str) else getattr(said, "name", said)
    prediction = PREDICTIONS.get(str(word).lower())
    if prediction is None:
        raise ValueError(
            f"schedule: the network's prediction is {said!r}, which is none of {', '.join(PREDICTIONS)}; {HINT}"
        )
    return prediction


def _schedules(owner: nn.Module, network: nn.Module) -> dict[str, object]:
    def is_schedule(value: object) -> bool:
        has_alphas = isinstance(getattr(value, "alphas_cumprod", None), torch.Tensor | np.ndarray)
        return has_alphas or (type(value).__name__.startswith("FlowMatch") and hasattr(value, "config"))

    def stop(path: str, value: object) -> bool:
        is_network = isinstance(value, nn.Module) and unwrap(value) is network
        return is_network or is_ema(path, value)

    found = {path: value for path, value in walk(owner, stop=stop) if is_schedule(value) and not stop(path, value)}
    return {"the module itself": owner, **found} if is_schedule(owner) else found


def _fingerprint(adapter: Adapter) -> tuple[object, ...]:
    """Equal for schedules that say the same, such as a DDPM scheduler for training and a DDIM one for sampling."""
    keywords = getattr(adapter, "keywords", {})
    values = (value.numpy().tobytes() if isinstance(value, torch.Tensor) else value for value in keywords.values())
    return getattr(adapter, "func", adapter), *values
