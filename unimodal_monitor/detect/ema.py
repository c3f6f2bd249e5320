"""Averaged weights: found where a job keeps them, without swapping anything."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from torch import Tensor, nn

from unimodal_monitor.denoisers.base import unwrap
from unimodal_monitor.denoisers.network import named_tensors
from unimodal_monitor.detect.attributes import EMA_NAME, MACHINERY, class_names, resolve, walk
from unimodal_monitor.detect.shadow import MISSING, Average, Place, averaged_tensors, follow, holds_average

AVERAGE_NAME = re.compile(r"(^|_)(averages?|averaged|shadow|emas)(_|\d|$)")
AVERAGE_CLASS = re.compile(r"E(ma|MA)([A-Z\d_]|$)|Average")
TEACHER_NAME = re.compile(r"(^|_)(target|teacher)s?(_|\d|$)")
OTHER_NAME = re.compile(r"(^|_)(grads?|gradients?|loss(es)?|norms?|moments?|momentum|var|sq|squared?)(_|$)")
"""Names of averages that are not of weights."""
LIBRARIES = {"pytorch_lightning", "lightning", "unimodal_monitor"}  # their callbacks hold nothing of the user's


def find_average(
    owner: nn.Module, network: nn.Module, *, path: str = "", ema: object = None, callbacks: Sequence[object] = ()
) -> Average | None:
    """The job's averaged weights of the network, None for raw weights; `ema` and `callbacks` as for `find_denoiser`.

    The result gives None before the first update and, during validation, when Lightning's WeightAveraging has swapped
    the two, the raw weights. `path`, the network's dotted name, decides where a source has several networks alike. Of
    a source with one average per rate (EDM2's `emas`, guided-diffusion's `ema_params`) the first is taken.
    """
    if ema is False:
        return None
    place, roots = Place(owner, network, path), _roots(owner, callbacks)
    if ema is None or ema is True:
        found = _only_fitting([_average(name, place, roots) for name in _sources(place, roots)])
        if len(found) > 1 or (ema is True and not found):
            listed = ", ".join(f"{average.name} ({type(average.source).__name__})" for average in found) or "none"
            raise ValueError(f"ema: the averages found are {listed}; name one, ema='...', or ema=False for raw weights")
        if not found:
            return None
        average = found[0]
    elif isinstance(ema, str):
        average = _average(ema, place, roots)
    else:
        average = _given(ema, place, roots)
    if not average.fits():
        raise ValueError(average.misfit())  # here, not at the first check
    return average


def unread_averages(
    owner: nn.Module, network: nn.Module, *, callbacks: Sequence[object] = (), used: object = None
) -> list[str]:
    """Dotted names of the averages, targets and teachers of a job that hold weights and are not read.

    `used` is the `source` of the `Average` that is read, None for raw weights. What shares its weights does not count.

    >>> job = nn.ModuleDict({"net": nn.Linear(2, 2), "teacher": nn.Linear(2, 2)})
    >>> unread_averages(job, job["net"])
    ['teacher']
    """
    place = Place(owner, network)
    own = _storages(network, place)
    read = _storages(used, place) - own

    def is_unread(path: str, value: object) -> bool:
        name = path.rpartition(".")[2]
        is_called_so = (_is_average_name(name) or TEACHER_NAME.search(name)) and not OTHER_NAME.search(name)
        is_one = (is_called_so and not isinstance(value, Tensor)) or _is_library_average(value)
        held = _storages(value, place) - own if is_one else set()
        return bool(held) and not held & read

    def is_closed(path: str, value: object) -> bool:
        return value is used or _is_network(value, network) or is_unread(path, value)

    names = []
    for label, root in _roots(owner, callbacks).items():
        if label and hasattr(root, "_average_model"):
            names += [label[:-1]] if is_unread("ema", root._average_model) else []
        elif not _is_of_library(label, root):
            attributes = _attributes(root, owner, stop=is_closed)
            names += [label + path for path, value in attributes if is_unread(path, value)]
    return names


def _roots(owner: nn.Module, callbacks: Sequence[object]) -> dict[str, object]:
    """The owner and the callbacks, by what comes before the names of their attributes."""
    roots: dict[str, object] = {"": owner}
    for callback in callbacks:
        kind = f"callback {type(callback).__name__}"
        number = 1 + sum(label.startswith((f"{kind}.", f"{kind} ")) for label in roots)
        roots[f"{kind}." if number == 1 else f"{kind} {number}."] = callback
    return roots


def _average(name: str, place: Place, roots: Mapping[str, object]) -> Average:
    """The average with this dotted name."""
    label = max((label for label in roots if f"{name}.".startswith(label)), key=len)
    root, attribute = roots[label], name[len(label) :]
    if not attribute:
        return Average(name, root, place)
    value = follow(root, attribute, default=MISSING)
    if value is MISSING and not label:
        value = resolve(place.owner, name, argument="ema")  # says what there is
    if value is MISSING:
        known = ", ".join(vars(root)) or "no attribute"
        raise ValueError(f"ema={name!r}: {label[:-1]} has no {attribute!r}, it has {known}")
    return Average(name, value, place, attribute=(root, attribute))


def _given(ema: object, place: Place, roots: Mapping[str, object]) -> Average:
    """The average that is this object, by its name in the job if it has one."""
    for label, root in roots.items():
        if root is ema and label:
            return Average(label[:-1], root, place)
        for path, value in _attributes(root, place.owner, stop=lambda *_: False):
            if value is ema and not _is_of_library(label, root):
                return Average(label + path, ema, place, attribute=(root, path))
    return Average(type(ema).__name__, ema, place)


def _sources(place: Place, roots: Mapping[str, object]) -> dict[str, object]:
    """Everything in the job that is an average by its class, its attributes or its name."""

    def is_source(path: str, value: object) -> bool:
        return _is_source(path, value, place)

    def is_closed(path: str, value: object) -> bool:
        return is_source(path, value) or _is_network(value, place.network)

    found: dict[str, object] = {}
    for label, root in sorted(roots.items(), key=lambda item: not hasattr(item[1], "_average_model")):
        if label and hasattr(root, "_average_model"):
            found[label[:-1]] = root
        elif not _is_of_library(label, root):
            for path, value in _attributes(root, place.owner, stop=is_closed):
                if is_source(path, value) and not any(value is known for known in found.values()):
                    found[label + path] = value
    return found


def _is_source(path: str, value: object, place: Place) -> bool:
    if value is None or _is_network(value, place.network):
        return False
    if _is_library_average(value):
        return True
    name = path.rpartition(".")[2]
    if isinstance(value, nn.Module) and not isinstance(value, nn.ParameterList | nn.ParameterDict):
        if not any(map(_is_average_name, path.split("."))):
            return False
        kind, parts = type(unwrap(value)), place.path.split(".")
        around = [place.owner, *(follow(place.owner, ".".join(parts[: i + 1])) for i in range(len(parts)))]
        is_like = any(kind is type(unwrap(m)) for m in around if isinstance(m, nn.Module))
        return kind is type(place.network) or (is_like and holds_average(value, place))
    is_named_so = _is_average_name(name) and not OTHER_NAME.search(name)
    is_plain = not isinstance(value, Mapping | list | tuple | nn.Module | Tensor)
    is_named_so = is_named_so or (is_plain and AVERAGE_CLASS.search(type(value).__name__) is not None)
    return is_named_so and holds_average(value, place)


def _is_library_average(value: object) -> bool:
    """Averages of diffusers and torch_ema, LDM, torch, ema_pytorch, EDM2 and guided-diffusion."""
    return (
        isinstance(getattr(value, "shadow_params", None), list | tuple | nn.ParameterList)
        or isinstance(getattr(value, "m_name2s_name", None), dict)
        or bool(class_names(value) & {"AveragedModel", "PostHocEMA"})
        or (hasattr(value, "ema_model") and isinstance(getattr(value, "initted", None), Tensor))
        or (hasattr(value, "stds") and isinstance(getattr(value, "emas", None), list | tuple | nn.ModuleList))
        or (hasattr(value, "ema_rate") and isinstance(getattr(value, "ema_params", None), list | tuple))
    )


def _only_fitting(found: list[Average]) -> list[Average]:
    """Of several averages those of this network, each once; all of them if none is."""
    if len(found) < 2:
        return found
    distinct: dict[object, Average] = {}
    for average in (average for average in found if average.fits()):
        tensors = averaged_tensors(average.source, average.place)[0]
        key = next((tensor.data_ptr() for tensor in tensors.values()), average.name)
        distinct.setdefault(key, average)
    return list(distinct.values()) or found


def _attributes(root: object, owner: nn.Module, *, stop: Callable[[str, object], bool]) -> Iterator[tuple[str, object]]:
    """What `walk` gives, also for a callback, which need not be a module, and what plain objects and dicts hold."""
    found = walk(root, stop=stop) if isinstance(root, nn.Module) else _attributes_of_plain(root, owner, stop=stop)
    for path, value in found:
        yield path, value
        if _is_holder(value) and not stop(path, value):
            items = value if isinstance(value, Mapping) else vars(value)
            yield from ((f"{path}.{name}", inner) for name, inner in items.items() if name.isidentifier())


def _attributes_of_plain(
    root: object, owner: nn.Module, *, stop: Callable[[str, object], bool]
) -> Iterator[tuple[str, object]]:
    for name, value in getattr(root, "__dict__", {}).items():
        yield name, value
        if isinstance(value, nn.Module) and unwrap(value) is not owner and not stop(name, value):
            yield from walk(value, stop=stop, prefix=f"{name}.")


def _is_holder(value: object) -> bool:
    """Whether it is an object of the user's or of a diffusion library, or a dict by names: a training loop, a state."""
    if isinstance(value, Mapping):
        return all(isinstance(name, str) for name in value)
    package = type(value).__module__.partition(".")[0]
    is_plain = hasattr(value, "__dict__") and not isinstance(value, nn.Module | Tensor | type)
    return is_plain and not callable(value) and package not in {*LIBRARIES, "torch", "builtins"}


def _storages(value: object, place: Place, *, depth: int = 3) -> set[int]:
    """Addresses of the weights in it: parameters, and other tensors with the shape of one of the network's."""
    if isinstance(value, Tensor):
        is_weight = any(value.shape == tensor.shape for tensor in place.network.parameters())
        return {value.data_ptr()} if is_weight or isinstance(value, nn.Parameter) else set()
    if value is place.owner or isinstance(value, type) or value is None:
        return set()
    plain = getattr(value, "__dict__", {}).items()
    inside: Iterable[object] = [inner for name, inner in plain if name not in MACHINERY]
    if isinstance(value, nn.Module):
        inside = [*named_tensors(value).values(), *inside]
    elif isinstance(value, list | tuple | Mapping):
        inside = value.values() if isinstance(value, Mapping) else value
    return set().union(*(_storages(inner, place, depth=depth - 1) for inner in inside)) if depth else set()


def _is_average_name(name: str) -> bool:
    return bool(EMA_NAME.search(name) or AVERAGE_NAME.search(name))


def _is_network(value: object, network: nn.Module) -> bool:
    return isinstance(value, nn.Module) and unwrap(value) is network


def _is_of_library(label: str, root: object) -> bool:
    return bool(label) and type(root).__module__.partition(".")[0] in LIBRARIES
