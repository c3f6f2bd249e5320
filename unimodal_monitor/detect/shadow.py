"""The tensors of an average by the network's names, for each way in which libraries keep them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unimodal_monitor.denoisers.network import named_tensors

HELD = ("_average_model", "module", "ema_model", "ema_models", "emas", "ema_params", "shadow_params", "shadow", "ema")
"""Attributes in which Lightning, torch, timm, ema_pytorch, EDM2, guided-diffusion and diffusers keep an average."""
COUNTERS = ("n_averaged", "optimization_step", "num_updates", "initted")  # torch, diffusers, LDM, ema_pytorch
LISTS = (list, tuple, nn.ParameterList, nn.ModuleList)
MISSING = object()
SAMPLE = 64  # elements of a tensor that show whether it moves


@dataclass(frozen=True, eq=False)
class Place:
    """The network whose average is read, the module that it is a part of and its dotted name there."""

    owner: nn.Module
    network: nn.Module
    path: str = ""


@dataclass(eq=False)
class Average:
    """The job's averaged weights, read anew at each call: {name in the network: tensor}, None while it has none.

    None stands for the raw weights: before the first update, and as long as the average is equal to its first reading
    although the raw weights have moved. Lightning's own callbacks, which may average once per epoch, need not move.
    """

    name: str  # dotted, with "callback Name." for a callback's; the class of an object that has no name in the job
    found: object
    place: Place
    _: KW_ONLY
    attribute: tuple[object, str] | None = None  # object and dotted name, because a job may set it anew at each update
    _first: tuple[Tensor, Tensor] | None = field(default=None, init=False, repr=False)
    _has_moved: bool = field(default=False, init=False, repr=False)

    @property
    def source(self) -> object:
        """The object that is read now."""
        return self.found if self.attribute is None else follow(*self.attribute, default=self.found)

    def fits(self) -> bool:
        """Whether the source holds averaged weights of the network, or will hold them once it is set up."""
        return holds_average(self.source, self.place) or is_pending(self.source)

    def __call__(self) -> dict[str, Tensor] | None:
        """Averaged tensors by the network's names, or None for its raw weights."""
        source = self.source
        tensors, holders = averaged_tensors(source, self.place)
        if not tensors and not is_pending(source):
            raise ValueError(self.misfit())
        if not tensors or is_live(tensors, self.place.network):
            return None
        is_still = not hasattr(source, "_average_model") and self._is_still(tensors)
        return None if is_still or any(is_empty(holder) for holder in holders) else tensors

    def misfit(self) -> str:
        """Message for a source that does not fit."""
        return (
            f"ema: {type(self.source).__name__} does not hold the weights of {type(self.place.network).__name__}, or"
            f" only the raw ones; give ema= the average of this network, or ema=False for its raw weights"
        )

    def _is_still(self, tensors: dict[str, Tensor]) -> bool:
        if self._has_moved:
            return False
        names = [name for name, _ in trained_parameters(self.place.network) if name in tensors]
        averaged, raw = (_sample(of, names) for of in (tensors, named_tensors(self.place.network)))
        if self._first is None or self._first[0].shape != averaged.shape:  # other parameters are trained now
            self._first = averaged, raw
        self._has_moved = not torch.equal(averaged, self._first[0])
        return not self._has_moved and not torch.equal(raw, self._first[1])


def follow(root: object, path: str, *, default: object = None) -> object:
    """The object with this dotted name in the root, or with these keys in dicts."""
    value = root
    for name in path.split("."):
        value = _get(value, name, default=MISSING)
        if value is MISSING:
            return default
    return value


def averaged_tensors(source: object, place: Place, *, depth: int = 3) -> tuple[dict[str, Tensor], list[object]]:
    """Tensors by the network's names, {} if the source does not fit, and the objects from the source to the holder.

    A source with one average per rate, such as EDM2's `emas` or guided-diffusion's `ema_params`, gives its first one.
    """
    tensors = _by_order(source, place) if _is_tensor_list(source) else _by_name(source, place)
    if tensors and not is_live(tensors, place.network):
        return tensors, [source]
    for inner in _held(source) if depth else ():
        found, holders = averaged_tensors(inner, place, depth=depth - 1)
        if found and not is_live(found, place.network):
            return found, [source, *holders]
    return tensors, [source]


def holds_average(source: object, place: Place) -> bool:
    """Whether the source fits the network and is not the network's own weights."""
    tensors, _ = averaged_tensors(source, place)
    return bool(tensors) and not is_live(tensors, place.network)


def is_empty(holder: object) -> bool:
    """Whether the holder's counter says that it has not been updated yet.

    Lightning's StochasticWeightAveraging has `n_averaged=None` before its start; torch_ema's `num_updates=None` and
    LDM's -1 mean that updates are not counted. ema_pytorch only copies until `update_after_step`.
    """
    step, first = _get(holder, "step"), _get(holder, "update_after_step")
    if isinstance(first, int) and isinstance(step, Tensor | int) and int(step) <= first + 1:
        return True
    counts = (_get(holder, name) for name in COUNTERS)
    is_before_start = _get(holder, "n_averaged", default=holder) is None
    return is_before_start or next((bool(count == 0) for count in counts if count is not None), False)


def is_pending(source: object) -> bool:
    """Whether the source is None, or keeps None where its average will be, as Lightning's callback before its setup."""
    return source is None or any(_get(source, name, default=source) is None for name in HELD)


def is_live(tensors: Mapping[str, Tensor], network: nn.Module) -> bool:
    """Whether the tensors are the network's own, such as those of `state_dict()` without a copy."""
    needed = dict(trained_parameters(network))
    return all(name in tensors and tensors[name].data_ptr() == own.data_ptr() for name, own in needed.items())


def trained_parameters(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The trainable parameters by name; all parameters of a frozen network."""
    parameters = list(network.named_parameters())
    return [(name, parameter) for name, parameter in parameters if parameter.requires_grad] or parameters


def _sample(tensors: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """A few elements of the first and of the last tensor, on the CPU."""
    flat = [tensors[name].detach().flatten() for name in (names[0], names[-1])] if names else []
    return torch.cat(
        [torch.zeros(0, dtype=torch.double), *(part[:: max(1, len(part) // SAMPLE)].cpu().double() for part in flat)]
    )


def _get(holder: Any, name: str, *, default: object = None) -> Any:
    return holder.get(name, default) if isinstance(holder, Mapping) else getattr(holder, name, default)


def _held(source: object) -> Iterator[object]:
    """Where to look inside a source."""
    yield from (inner for inner in (_get(source, name) for name in HELD) if inner is not None and inner is not source)
    elements = list(source.values()) if isinstance(source, Mapping) else source
    if isinstance(elements, LISTS):
        yield from (element for element in elements if not isinstance(element, Tensor))


def _is_tensor_list(source: object) -> bool:
    return isinstance(source, LISTS) and len(source) > 0 and all(isinstance(tensor, Tensor) for tensor in source)


def _by_order(source: Any, place: Place) -> dict[str, Tensor]:
    """A list has no names: it follows the parameters, the trainable ones, or the state of the network or its owner."""
    names = {id(tensor): name for name, tensor in named_tensors(place.network).items()}
    averaged: Sequence[Tensor] = list(source)
    for module in (place.network, place.owner):
        parameters: list[Tensor] = list(module.parameters())
        trained, state = [p for p in parameters if p.requires_grad], module.state_dict(keep_vars=True).values()
        for ordered in (parameters, trained, list(state)):
            if [tensor.shape for tensor in ordered] == [tensor.shape for tensor in averaged]:
                pairs = zip(ordered, averaged, strict=True)
                return {names[id(own)]: tensor for own, tensor in pairs if id(own) in names}
    return {}


def _by_name(source: Any, place: Place) -> dict[str, Tensor]:
    """Names agree up to a prefix: the source may average any module around the network."""
    if isinstance(source, Mapping):
        stored = {name: tensor for name, tensor in source.items() if isinstance(tensor, Tensor)}
    elif isinstance(source, nn.Module):
        stored = named_tensors(source)
    else:
        return {}
    given = getattr(source, "m_name2s_name", None) or {name: name for name in stored}
    tensors = {_plain(str(name)): stored[key] for name, key in given.items() if key in stored}
    network, needed = place.network, trained_parameters(place.network)
    first, found = next((_plain(name) for name, _ in needed), ""), {}
    for prefix in [name.removesuffix(first) for name in tensors if f".{name}".endswith(f".{first}")]:
        names = {name: prefix + _plain(name) for name in named_tensors(network)}
        own = {name: tensors[averaged] for name, averaged in names.items() if averaged in tensors}
        if all(name in own and own[name].shape == parameter.shape for name, parameter in needed):
            found[prefix] = own
    found = {prefix: own for prefix, own in found.items() if not is_live(own, network)} or found
    if len(found) > 1:
        found = {prefix: own for prefix, own in found.items() if f".{_plain(place.path)}.".endswith(f".{prefix}")}
    return found[max(found, key=len)] if found else {}


def _plain(name: str) -> str:
    """The name without torch.compile's wrappers."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
