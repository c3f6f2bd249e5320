"""Averaged weights: where a job keeps them, and how to read them without swapping anything."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from unimodal_monitor.denoisers.network import unwrap
from unimodal_monitor.detect.attributes import class_names, is_ema, resolve, walk


class Average:
    """Reads the current averaged tensors of a network from where the job keeps them.

    Args:
        source: LDM's LitEma, torch's AveragedModel, diffusers' EMAModel (or another holder of `shadow_params`),
            Lightning's WeightAveraging callback, or a module that is the averaged copy of the network or contains it.
            (During validation that callback has swapped the two, and this reads the raw weights.)
        network: the unwrapped module whose average is wanted.
        path: the network's dotted name in the job, which decides where the source holds several alike.
    """

    def __init__(self, source: object, network: nn.Module, *, path: str = "") -> None:
        self.source = source
        self.network = network
        self.path = path

    def __call__(self) -> dict[str, Tensor] | None:
        """Averaged tensors by the network's names; None while there is no average, so raw weights are to be used."""
        return self.read() if _num_updates(self._current()) != 0 else None

    def read(self) -> dict[str, Tensor] | None:
        """As a call, but also before the first update of the average.

        Raises:
            ValueError: if the source does not match the network.
        """
        source = self._current()
        if source is None:
            return None
        tensors = self._shadow(source) if hasattr(source, "shadow_params") else self._aligned(_named_tensors(source))
        if not tensors:
            raise ValueError(
                f"ema: {type(source).__name__} does not hold the weights of {type(self.network).__name__};"
                f" give ema= the average of this network, or ema=False for its raw weights"
            )
        return tensors

    def _current(self) -> object:
        """The source itself; a callback has none before its setup."""
        return getattr(self.source, "_average_model", self.source)

    def _shadow(self, source: Any) -> dict[str, Tensor]:
        """`shadow_params` has no names: it follows the order of all parameters, or of the trainable ones."""
        shadow = list(source.shadow_params)
        named = list(self.network.named_parameters())
        if len(shadow) != len(named):
            named = [(name, parameter) for name, parameter in named if parameter.requires_grad]
        if [tensor.shape for tensor in shadow] != [parameter.shape for _, parameter in named]:
            return {}
        return {name: tensor for (name, _), tensor in zip(named, shadow, strict=True)}

    def _aligned(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors under the network's own names, whatever module the source averages."""
        parameters = {_plain(name): parameter for name, parameter in self.network.named_parameters()}
        needed = {name: p.shape for name, p in parameters.items() if p.requires_grad}
        needed = needed or {name: p.shape for name, p in parameters.items()}
        first = next(iter(needed), "")
        prefixes = [name.removesuffix(first) for name in tensors if f".{name}".endswith(f".{first}")]
        fitting = [p for p in prefixes if all(_shape(tensors, p + name) == shape for name, shape in needed.items())]
        if len(fitting) > 1:
            fitting = [prefix for prefix in fitting if f".{_plain(self.path)}.".endswith(f".{prefix}")]
        if not fitting:
            return {}
        prefix = max(fitting, key=len)
        names = [*dict(self.network.named_parameters()), *dict(self.network.named_buffers())]
        return {name: tensors[prefix + _plain(name)] for name in names if prefix + _plain(name) in tensors}


def find_average(
    owner: nn.Module,
    network: nn.Module,
    *,
    path: str = "",
    ema: object | str | bool | None = None,
    callbacks: Sequence[object] = (),
) -> Callable[[], Mapping[str, Tensor] | None] | None:
    """The job's averaged weights of the network, or None if it has none.

    Args:
        owner: the job's module.
        network: the unwrapped network.
        path: the network's dotted name in the owner.
        ema: False for raw weights, True if an average must be found, or a source (see `Average`) or its dotted name.
        callbacks: the trainer's.

    Raises:
        ValueError: if there are several, or if what there is does not match the network.
    """
    if ema is False:
        return None
    if ema is None or ema is True:
        sources = _sources(owner, network, callbacks)
        if len(sources) > 1 or (ema is True and not sources):
            found = ", ".join(f"{name} ({type(source).__name__})" for name, source in sources.items()) or "none"
            raise ValueError(f"ema: the averages found are {found}; name one, ema='...', or ema=False for raw weights")
        if not sources:
            return None
        ema = next(iter(sources.values()))
    average = Average(resolve(owner, ema, argument="ema") if isinstance(ema, str) else ema, network, path=path)
    average.read()
    return average


def _sources(owner: nn.Module, network: nn.Module, callbacks: Sequence[object]) -> dict[str, object]:
    def is_source(path: str, value: object) -> bool:
        if isinstance(value, nn.Module) and unwrap(value) is network:
            return False
        is_shadow = isinstance(getattr(value, "shadow_params", None), list | tuple | nn.ParameterList)
        is_holder = is_shadow or isinstance(getattr(value, "m_name2s_name", None), dict)
        is_copy = isinstance(value, nn.Module) and type(unwrap(value)) is type(network)
        is_in_ema = any(is_ema(name, None) for name in path.split("."))
        return is_holder or "AveragedModel" in class_names(value) or (is_copy and is_in_ema)

    def stop(path: str, value: object) -> bool:
        return is_source(path, value) or (isinstance(value, nn.Module) and unwrap(value) is network)

    found = {f"callback {type(c).__name__}": c for c in callbacks if hasattr(c, "_average_model")}
    for path, value in walk(owner, stop=stop):
        if is_source(path, value) and not any(value is known for known in found.values()):
            found[path] = value
    return found


def _named_tensors(source: object) -> dict[str, Tensor]:
    if not isinstance(source, nn.Module):
        return {}
    holder: Any = source
    if hasattr(holder, "m_name2s_name"):
        buffers = dict(holder.named_buffers())
        return {_plain(name): buffers[shadow] for name, shadow in holder.m_name2s_name.items()}
    inner = holder.module if hasattr(holder, "n_averaged") else holder
    tensors = {**dict(inner.named_parameters()), **dict(inner.named_buffers())}
    return {_plain(name): tensor for name, tensor in tensors.items()}


def _num_updates(source: object) -> int | None:
    """How often the average was updated: 0 also where there is none yet, None where nobody counts."""
    if source is None:
        return 0
    for counter in ("n_averaged", "optimization_step", "num_updates"):
        count = getattr(source, counter, None)
        if count is not None:
            return int(count)
    return None


def _shape(tensors: Mapping[str, Tensor], name: str) -> object:
    return tensors[name].shape if name in tensors else None


def _plain(name: str) -> str:
    """The name without torch.compile's wrappers."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
