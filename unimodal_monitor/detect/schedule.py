"""Which calling convention a job's noise schedule stands for."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from unimodal_monitor.denoisers import EDMDenoiser, FlowDenoiser, Prediction, VPDenoiser
from unimodal_monitor.denoisers.base import unwrap
from unimodal_monitor.denoisers.network import forward_parameters
from unimodal_monitor.detect.attributes import class_names, is_ema, resolve, walk
from unimodal_monitor.detect.words import HINT, PREDICTIONS, TIMES, Adapter, adapter_named

EXPLICIT = "give schedule=partial(VPDenoiser, alphas_cumprod=..., prediction='epsilon', 'v_prediction' or 'sample')"

PREDICTION_NAMES = ("prediction_type", "parameterization", "objective", "model_mean_type")
JOB_NAMES = (*PREDICTION_NAMES, "prediction", "pred_type", "predict_x0", "scaling")  # on the job, a part, or hparams

# Networks of diffusers by what they take with a FlowMatch scheduler, read in its pipelines.
FLOW_TIMES: dict[str, str] = {
    **dict.fromkeys(("FluxTransformer2DModel", "Flux2Transformer2DModel", "ChromaTransformer2DModel"), "flow"),
    **dict.fromkeys(("QwenImageTransformer2DModel", "AuraFlowTransformer2DModel"), "flow"),
    **dict.fromkeys(("OvisImageTransformer2DModel", "LongCatImageTransformer2DModel"), "flow"),
    **dict.fromkeys(("Lumina2Transformer2DModel", "LuminaNextDiT2DModel", "ZImageTransformer2DModel"), "flow:data"),
    **dict.fromkeys(("SD3Transformer2DModel", "SanaTransformer2DModel", "WanTransformer3DModel"), "flow:x1000"),
    **dict.fromkeys(("HunyuanVideoTransformer3DModel", "LTXVideoTransformer3DModel"), "flow:x1000"),
    **dict.fromkeys(("CogView4Transformer2DModel", "SkyReelsV2Transformer3DModel"), "flow:x1000"),
}


def find_adapter(owner: nn.Module, network: nn.Module, *, schedule: object | str | None = None) -> Adapter:
    """The adapter for the job's noise schedule, given as for `find_denoiser`."""
    if isinstance(schedule, str) and (named := adapter_named(schedule)) is not None:
        return _edm(owner, network) if named is EDMDenoiser else named
    if isinstance(schedule, str):
        return _adapter_of_name(owner, network, schedule)
    if schedule is not None:
        return adapter_of(schedule, network, stated=dict(_stated(owner, network)))
    if "sigma" in forward_parameters(network):
        return _edm(owner, network)
    schedules, stated = find_schedules(owner, network), dict(_stated(owner, network))
    adapters = {path: adapter_of(value, network, stated=stated) for path, value in schedules.items()}
    if len({_fingerprint(adapter) for adapter in adapters.values()}) == 1:
        return next(iter(adapters.values()))
    found = ", ".join(adapters) or "none"
    raise ValueError(f"schedule: the noise schedules found in {type(owner).__name__} are {found}; {HINT}")


def _adapter_of_name(owner: nn.Module, network: nn.Module, name: str) -> Adapter:
    """A scheduler's dotted name, which may end in a prediction and a factor of its times: "scheduler:v:x0.25"."""
    path, *options = name.split(":")
    schedule: Any = resolve(owner, path, argument="schedule")
    predictions = [PREDICTIONS[option] for option in options if option in PREDICTIONS]
    others = [option for option in options if option not in PREDICTIONS]  # "x0" is one, and no factor
    factors = [float(factor[1]) for option in others if (factor := TIMES.match(option))]
    if len(predictions) + len(factors) < len(options):
        raise ValueError(f"schedule={name!r}: need a prediction or a factor of time such as x0.25 after {path}")
    if not options:
        return adapter_of(schedule, network, stated=dict(_stated(owner, network)))
    alphas_cumprod = torch.as_tensor(getattr(schedule, "alphas_cumprod", schedule)).detach().cpu().double()
    prediction = predictions[0] if predictions else _agreed(schedule, dict(_stated(owner, network)))
    times = (
        torch.arange(len(alphas_cumprod)).double() * factors[0] if factors else times_of(schedule, len(alphas_cumprod))
    )
    return partial(VPDenoiser, alphas_cumprod=alphas_cumprod, prediction=prediction, times=times)


def adapter_of(schedule: Any, network: nn.Module, *, stated: dict[str, Prediction] | None = None) -> Adapter:
    """The adapter for one object: anything with `alphas_cumprod`, a flow scheduler, or an adapter itself.

    `stated` has the predictions that the job itself names, by attribute; a ValueError if the schedule says otherwise.
    """
    if getattr(getattr(schedule, "config", None), "prediction_type", None) == "flow_prediction":  # a sampler of flows
        return _flow_match(schedule, network)
    if isinstance(schedule, torch.Tensor | np.ndarray) or getattr(schedule, "alphas_cumprod", None) is not None:
        if hasattr(schedule, "marginal_prob"):  # score_sde: the discrete table stands beside continuous times
            raise ValueError(
                f"schedule: {type(schedule).__name__} may train continuous times; {EXPLICIT}, or denoiser="
            )
        alphas_cumprod = torch.as_tensor(getattr(schedule, "alphas_cumprod", schedule)).detach()
        alphas_cumprod = alphas_cumprod.to("cpu", torch.float64, copy=True)
        prediction = _agreed(schedule, stated or {})
        times = times_of(schedule, len(alphas_cumprod))
        return partial(VPDenoiser, alphas_cumprod=alphas_cumprod, prediction=prediction, times=times)
    if type(schedule).__name__ == "RFlowScheduler":  # MONAI: velocity data - noise, times up to 1000 at noise
        scale = float(schedule.num_train_timesteps)
        return partial(FlowDenoiser, time_scale=scale, velocity_to="data")
    if type(schedule).__name__.startswith("FlowMatch"):
        return _flow_match(schedule, network)
    if callable(schedule) and not isinstance(schedule, nn.Module):
        return cast(Adapter, schedule)
    raise ValueError(f"schedule is of type {type(schedule).__name__}, whose noise levels are not known; {HINT}")


def prediction_of(schedule: Any) -> Prediction | None:
    """The network's prediction according to its schedule; None if the schedule does not say."""
    if "LearnedGaussianDiffusion" in class_names(schedule):  # lucidrains trains the noise, whatever its `objective` is
        return "epsilon"
    holders = [(getattr(schedule, "config", None), "prediction_type"), *((schedule, name) for name in PREDICTION_NAMES)]
    values = (getattr(holder, name, None) for holder, name in holders)
    value = next((value for value in values if value is not None), None)
    if value is None:
        return None
    prediction = PREDICTIONS.get(_word(value))
    if prediction is None:
        words = ", ".join(PREDICTIONS)
        raise ValueError(f"schedule: the network's prediction is {value!r}; need one of {words}, or {HINT}")
    return prediction


def times_of(schedule: Any, num: int) -> torch.Tensor | None:
    """(T,) times that an ADM network gets for the schedule's steps; None where they are the steps themselves."""
    steps, original = getattr(schedule, "timestep_map", None), getattr(schedule, "original_num_steps", num)
    is_rescaled = getattr(schedule, "rescale_timesteps", False) is True
    if not isinstance(steps, list | tuple) and not is_rescaled:
        return None
    times = torch.as_tensor(range(num) if steps is None else list(steps))
    return times.double() * (1000.0 / original) if is_rescaled else times


def _agreed(schedule: Any, stated: dict[str, Prediction]) -> Prediction:
    own = prediction_of(schedule)
    others = {name: word for name, word in stated.items() if word != own}
    if own is not None and others and "LearnedGaussianDiffusion" not in class_names(schedule):
        name, word = next(iter(others.items()))
        what = f"{type(schedule).__name__} says that the network predicts {own}, the job's {name} says {word}"
        raise ValueError(f"schedule: {what}; make them agree, or {EXPLICIT}")
    words = {own} if own is not None else set(stated.values())
    if len(words) != 1:
        what = "; ".join(f"{name} says {word}" for name, word in stated.items()) or "nothing says"
        raise ValueError(f"schedule: {what} what the network predicts with {type(schedule).__name__}; {EXPLICIT}")
    return words.pop()


def _stated(owner: nn.Module, network: nn.Module) -> Iterator[tuple[str, Prediction]]:
    """What the job's own attributes, hyperparameters and scalings say about the prediction."""
    for name in JOB_NAMES:
        for path, holder in (("", vars(owner)), ("hparams.", cast(Any, getattr(owner, "hparams", None) or {}))):
            value = holder.get(name)
            if name == "predict_x0":
                value = "x0" if value is True else None
            if (word := PREDICTIONS.get(_word(value))) is not None:
                yield f"{path}{name}", word
    for path, value in walk(owner, stop=lambda _, value: value is network):
        if path.rpartition(".")[2] == "scaling" and type(value).__name__.endswith(("Scaling", "EDMcNoise")):
            word = PREDICTIONS.get(_word(type(value).__name__))
            if word is None:
                kind = type(value).__name__
                raise ValueError(f"schedule: {path} is a {kind}, whose times are not known; give denoiser=")
            yield path, word


def _word(value: object) -> str:
    return str(getattr(value, "value", value) if isinstance(value, str) else getattr(value, "name", value)).lower()


def _flow_match(schedule: Any, network: nn.Module) -> Adapter:
    """diffusers' scheduler does not tell the network's times: those of its own networks are known, others are asked."""
    if getattr(schedule.config, "invert_sigmas", False):
        return partial(FlowDenoiser, noise_at=0, time_scale=float(schedule.config.num_train_timesteps))
    word = next((FLOW_TIMES[name] for name in class_names(network) if name in FLOW_TIMES), None)
    if word is None:
        raise ValueError(
            f"schedule: {type(schedule).__name__} does not tell which times {type(network).__name__} gets; give"
            " schedule='flow:x1000' if the job passes times up to 1000, 'flow' if it passes times up to 1"
        )
    return cast(Adapter, adapter_named(word))


def _edm(owner: nn.Module, network: nn.Module) -> Adapter:
    """EDM's convention where the network takes `sigma` and no module around it does."""
    names, name = forward_parameters(network), type(network).__name__
    if names and "sigma" not in names:
        raise ValueError(
            f"schedule='edm', but the forward of {name} takes {', '.join(names)}, not sigma; give denoiser="
        )
    for module in owner.modules():
        is_around = module is not network and unwrap(module) is not network and network in set(module.modules())
        if is_around and "sigma" in forward_parameters(module):
            around = type(module).__name__
            raise ValueError(f"net: {name} is called by {around}, which takes sigma and denoises; give net= that one")
    return EDMDenoiser


def find_schedules(owner: nn.Module, network: nn.Module) -> dict[str, object]:
    """The job's noise schedules by dotted name, outside the network and averages."""

    def is_schedule(value: object) -> bool:
        has_alphas = isinstance(getattr(value, "alphas_cumprod", None), torch.Tensor | np.ndarray)
        is_flow = type(value).__name__.startswith("FlowMatch") and hasattr(value, "config")
        return has_alphas or is_flow or type(value).__name__ == "RFlowScheduler"

    def stop(path: str, value: object) -> bool:
        return is_ema(path, value) or (isinstance(value, nn.Module) and unwrap(value) is network)

    known = [(path, value) for path, value in walk(owner, stop=stop) if not stop(path, value)]
    inner = ((f"{path}.scheduler", getattr(value, "scheduler", None)) for path, value in known)  # MONAI's inferers
    found = {path: value for path, value in (*known, *inner) if is_schedule(value)}
    return {"the module itself": owner, **found} if is_schedule(owner) else found


def distinct_adapters(owner: nn.Module, network: nn.Module, words: Iterable[str]) -> Iterator[tuple[str, Adapter]]:
    """The words that stand for a schedule, each with its adapter; of words for the same one the first."""
    seen = set()
    for word in words:
        try:
            adapter = find_adapter(owner, network, schedule=word)
        except ValueError:  # such as a prediction that its path has not
            continue
        if (known := _fingerprint(adapter)) not in seen:
            seen.add(known)
            yield word, adapter


def _fingerprint(adapter: Adapter) -> tuple[object, ...]:
    """Equal for equivalent schedules, such as a DDPM scheduler for training and a DDIM one for sampling."""
    keywords = sorted(getattr(adapter, "keywords", {}).items())
    values = ((name, v.numpy().tobytes() if isinstance(v, torch.Tensor) else v) for name, v in keywords)
    return getattr(adapter, "func", adapter), *values
