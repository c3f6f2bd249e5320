"""Names of calling conventions: `family:option:option`, as given in `schedule=` and as printed."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from unimodal_monitor.denoisers import Denoiser, EDMDenoiser, PathDenoiser, Prediction
from unimodal_monitor.denoisers.path import PATHS

Adapter = Callable[..., Denoiser]  # called as adapter(net, weights=..., condition=...)

PREDICTIONS: dict[str, Prediction] = {  # the words of diffusers, LDM, lucidrains, ADM and sgm
    **dict.fromkeys(("epsilon", "eps", "pred_noise", "noise", "epsscaling"), "epsilon"),
    **dict.fromkeys(("sample", "x0", "pred_x0", "start_x"), "sample"),
    **dict.fromkeys(("v_prediction", "v", "pred_v", "vscaling"), "v_prediction"),
}
TIMES, STD = re.compile(r"x(\d+(\.\d+)?(e-?\d+)?)$"), re.compile(r"std(\d+(\.\d+)?)$")
HINT = (
    "give schedule= the scheduler or its dotted name, or 'edm' (the network takes sigma and denoises), 'flow'"
    " (velocity, time 1 is noise), 'flow:data' (velocity, time 1 is data), either with ':x1000' (times up to 1000),"
    " 'cosine', 'vpsde', 've', 'edm:inner' (the network inside EDM's preconditioning)"
)


def adapter_named(word: str) -> Adapter | None:
    """The adapter that a word stands for; None if its family is not one, a ValueError for an unknown option.

    Families are "flow", "cosine", "vpsde", "subvp", "ve" and "edm"; options are a prediction ("epsilon", "x0", "v",
    "velocity", "score"), "data" (time 1 is data), "to_noise" or "to_data" (the velocity's direction), "log" ("ve": the
    network gets ln sigma), "inner" ("edm": the network inside the preconditioning, with "std1" for a sigma_data of 1
    in place of 0.5), and a factor of time, "x1000".

    >>> adapter_named("edm").__name__, adapter_named("cosine:v").keywords
    ('EDMDenoiser', {'path': 'cosine', 'prediction': 'v_prediction', 'time_scale': 1.0})
    """
    family, *options = word.split(":")
    if family not in PATHS:
        return None
    if word == "edm":
        return EDMDenoiser
    keywords: dict[str, Any] = {}
    for option in options:
        keywords |= _option(word, option)
    default = 999.0 if family in ("vpsde", "subvp") else 1.0
    return partial(PathDenoiser, **{"path": family, **keywords, "time_scale": keywords.get("time_scale", default)})


def _option(word: str, option: str) -> dict[str, Any]:
    if option in PREDICTIONS:
        return {"prediction": PREDICTIONS[option]}
    if option in ("velocity", "score"):
        return {"prediction": option}
    if option.startswith("to_") and option[3:] in ("noise", "data"):
        return {"velocity_to": option[3:]}
    if (factor := TIMES.match(option)) is not None:
        return {"time_scale": float(factor[1])}
    if (std := STD.match(option)) is not None:
        return {"std": float(std[1])}
    known: dict[str, dict[str, Any]] = {"data": {"noise_at": 0}, "log": {"log_time": True}, "inner": {}}
    if option not in known:
        raise ValueError(f"schedule={word!r}: {option!r} is no option of a schedule's name; {HINT}")
    return known[option]
