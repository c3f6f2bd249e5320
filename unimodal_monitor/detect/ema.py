"""Averaged weights: read from where a job keeps them, without swapping anything."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from unimodal_monitor.denoisers.base import unwrap
from unimodal_monitor.denoisers.network import named_tensors
from unimodal_monitor.detect.attributes import class_names, is_ema, resolve, walk

COUNTERS = ("n_averaged", "optimization_step", "num_updates")  # of updates, in torch, diffusers and LDM


def find_average(
    owner: nn.Module, network: nn.Module, *, path: str = "", ema: object = None, callbacks: Sequence[object] = ()
) -> Callable[[], dict[str, Tensor] | None] | None:
    """The job's averaged weights of the network, None for raw weights; `ema` and `callbacks` as for `find_denoiser`.

    The result gives None before the first update and, during validation, when Lightning's WeightAveraging has swapped
    the two, the raw weights. `path`, the network's dotted name, decides where a source has several networks alike.
    """
    if ema is None or ema is True:
        sources = _sources(owner, network, callbacks)
        if len(sources) > 1 or (ema is True and not sources):
            found = ", ".join(f"{name} ({type(source).__name__})" for name, source in sources.items()) or "none"
            raise ValueError(f"ema: the averages found are {found}; name one, ema='...', or ema=False for raw weights")
        ema = next(iter(sources.values()), False)
    if ema is False:
        return None
    source = resolve(owner, ema, argument="ema") if isinstance(ema, str) else ema

    def current() -> object:  # Lightning's callback has no average before its setup
        return getattr(source, "_average_model", source)

    def average() -> dict[str, Tensor] | None:
        counts = (getattr(current(), name, None) for name in COUNTERS)
        is_empty = next((count == 0 for count in counts if count is not None), current() is None)
        return None if is_empty else _averaged(current(), network, path)

    if current() is not None:
        _averaged(current(), network, path)  # a source that does not match fails here, not at the first check
    return average


def _sources(owner: nn.Module, network: nn.Module, callbacks: Sequence[object]) -> dict[str, object]:
    def is_network(value: object) -> bool:
        return isinstance(value, nn.Module) and unwrap(value) is network

    def is_source(path: str, value: object) -> bool:
        is_copy = isinstance(value, nn.Module) and type(unwrap(value)) is type(network)
        return not is_network(value) and (
            isinstance(getattr(value, "shadow_params", None), list | tuple | nn.ParameterList)
            or isinstance(getattr(value, "m_name2s_name", None), dict)
            or "AveragedModel" in class_names(value)
            or (is_copy and any(is_ema(name, None) for name in path.split(".")))
        )

    found = {f"callback {type(c).__name__}": c for c in callbacks if hasattr(c, "_average_model")}
    for path, value in walk(owner, stop=lambda path, value: is_source(path, value) or is_network(value)):
        if is_source(path, value) and not any(value is known for known in found.values()):
            found[path] = value
    return found


def _averaged(source: Any, network: nn.Module, path: str) -> dict[str, Tensor]:
    """Averaged tensors by the network's names."""
    tensors = _by_order(source, network) if hasattr(source, "shadow_params") else _by_name(source, network, path)
    if not tensors:
        raise ValueError(
            f"ema: {type(source).__name__} does not hold the weights of {type(network).__name__};"
            f" give ema= the average of this network, or ema=False for its raw weights"
        )
    return tensors


def _by_order(source: Any, network: nn.Module) -> dict[str, Tensor]:
    """`shadow_params` has no names: it follows the order of all parameters, or of the trainable ones."""
    shadow, named = list(source.shadow_params), dict(network.named_parameters())
    if len(shadow) != len(named):
        named = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
    fits = [tensor.shape for tensor in shadow] == [parameter.shape for parameter in named.values()]
    return dict(zip(named, shadow, strict=True)) if fits else {}


def _by_name(source: Any, network: nn.Module, path: str) -> dict[str, Tensor]:
    """Names agree up to a prefix: the source may average any module around the network."""
    if not hasattr(source, "named_parameters"):
        return {}
    tensors = named_tensors(source.module if hasattr(source, "n_averaged") else source)
    names = getattr(source, "m_name2s_name", {name: name for name in tensors})
    tensors = {_plain(name): tensors[stored] for name, stored in names.items()}
    parameters = list(network.named_parameters())
    needed = [(name, parameter) for name, parameter in parameters if parameter.requires_grad] or parameters
    first, found = next((_plain(name) for name, _ in needed), ""), {}
    for prefix in [name.removesuffix(first) for name in tensors if f".{name}".endswith(f".{first}")]:
        names = {name: prefix + _plain(name) for name in named_tensors(network)}
        own = {name: tensors[averaged] for name, averaged in names.items() if averaged in tensors}
        if all(name in own and own[name].shape == parameter.shape for name, parameter in needed):
            found[prefix] = own
    if len(found) > 1:
        found = {prefix: own for prefix, own in found.items() if f".{_plain(path)}.".endswith(f".{prefix}")}
    return found[max(found, key=len)] if found else {}


def _plain(name: str) -> str:
    """The name without torch.compile's wrappers."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
