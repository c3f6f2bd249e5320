"""Features: hooks that exist only inside a check, pooling inside the hook, and the end of a forward nobody needs."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn

BOTTLENECKS = ("mid_block", "middle_block", "mid_block2")
DECODERS = ("up_blocks", "output_blocks", "ups")


class LayersDone(Exception):
    """Ends a forward after the last hooked layer; never leaves `Capture.run`."""


def mean_pool(output: Any) -> Tensor:
    """Mean over space or tokens of a layer's output.

    Args:
        output: (N, C, *space), (N, tokens, D) or (N, D); of a (text, image) pair of token streams the image
            is taken, of a (map, skips) pair the map.

    Returns:
        (N, D) float32.

    Raises:
        ValueError: if there is no tensor of two dimensions or more.
    """
    output = _tensor_of(output).float()
    if output.ndim == 2:
        return output
    return output.mean(1) if output.ndim == 3 else output.flatten(2).mean(2)


def spread(output: Any) -> Tensor:
    """(N,) standard deviation of all that a layer puts out for an image, over channels and space or tokens together.

    Args:
        output: as `mean_pool` takes it.
    """
    return _tensor_of(output).float().flatten(1).std(1, correction=0)


def _tensor_of(output: Any) -> Tensor:
    if isinstance(output, tuple | list) and output:
        second = output[1] if len(output) > 1 else None
        is_pair_of_streams = isinstance(second, Tensor) and second.ndim == 3
        output = second if is_pair_of_streams else output[0]
    if not isinstance(output, Tensor) or output.ndim < 2:
        raise ValueError(f"a layer must put out a tensor of two dimensions or more, got {type(output).__name__}")
    return output


class Capture:
    """Runs forwards and keeps the pooled output of some layers.

    Args:
        layers: modules by name.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        self.layers = layers
        self.output: Any = None
        self.spread: dict[str, Tensor] = {}
        self._to_the_end = False
        self._features: dict[str, Tensor] = {}

    def run(self, forward: Callable[[], Any], *, to_the_end: bool = False) -> dict[str, Tensor]:
        """Features of one forward: (N, D) by layer, in the order in which the layers fired.

        Args:
            forward: calls the network.
            to_the_end: keep what `forward` returns as `output`, in place of ending it after the last hooked layer, and
                the (N,) `spread` of each layer.

        Raises:
            ValueError: if a layer did not fire, or fired twice.
        """
        self._features, self.spread, self.output, self._to_the_end = {}, {}, None, to_the_end
        with suppress(LayersDone):
            self.output = forward()
        silent = [name for name in self.layers if name not in self._features]
        if silent:
            raise ValueError(f"the forward never called {', '.join(silent)}; choose layers that it calls")
        return self._features

    def hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        """The forward hook of one layer."""

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            if name in self._features:
                raise ValueError(f"layer {name!r} is called more than once in a forward; choose another")
            self._features[name] = mean_pool(output).detach()
            if self._to_the_end:
                self.spread[name] = spread(output).detach()
            elif len(self._features) == len(self.layers):
                raise LayersDone

        return keep


@contextmanager
def capture(layers: Mapping[str, nn.Module]) -> Iterator[Capture]:
    """Hooks on `layers` for the length of the block."""
    captured = Capture(layers)
    handles = [layer.register_forward_hook(captured.hook(name)) for name, layer in layers.items()]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def find_layers(network: nn.Module, names: Sequence[str] | str | None = None) -> dict[str, nn.Module]:
    """The layers to probe, by dotted name.

    Args:
        network: the denoiser's network.
        names: dotted names, or a single one; None for the bottleneck and the first two decoder stages of a U-Net,
            or depths 1/3, 1/2 and 2/3 of the longest stack of like blocks.

    Raises:
        ValueError: if a name is not in the network (naming the nearest), or nothing suits by itself.
    """
    if isinstance(names, str):
        names = [names]
    modules = {name: module for name, module in network.named_modules() if name}
    names = _default_names(network) if names is None else list(names)
    for name in names:
        if name not in modules:
            near = difflib.get_close_matches(name, modules, n=3) or [name for name, _ in network.named_children()]
            raise ValueError(f"layer {name!r} is not in the network; did you mean {', '.join(near)}?")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"layers must be one name or more, each once, got {names}")
    return {name: modules[name] for name in names}


def _default_names(network: nn.Module) -> list[str]:
    for name, module in network.named_modules():
        prefix, _, last = name.rpartition(".")
        if last in BOTTLENECKS:
            return [name, *_decoder_stages(network.get_submodule(prefix), prefix)]
        if last == "dec" and isinstance(module, nn.ModuleDict):
            return _edm_stages(module, name)
    stacks = [
        (name, stack)
        for name, stack in network.named_modules()
        if isinstance(stack, nn.ModuleList | nn.Sequential) and len({type(block) for block in stack}) == 1
    ]
    if not stacks or max(len(stack) for _, stack in stacks) < 3:
        top = ", ".join(name for name, _ in network.named_children())
        raise ValueError(
            f"{type(network).__name__} is no U-Net and no stack of blocks that the monitor knows; "
            f"name its layers: layers=[...] out of {top} and their submodules"
        )
    name, stack = max(stacks, key=lambda item: len(item[1]))
    depth = len(stack)
    return [f"{name}.{block}" for block in sorted({depth // 3, depth // 2, 2 * depth // 3})]


def _decoder_stages(unet: nn.Module, prefix: str) -> list[str]:
    for decoder in DECODERS:
        stages = getattr(unet, decoder, None)
        if isinstance(stages, nn.ModuleList) and len(stages) >= 2:
            dot = f"{prefix}." if prefix else ""
            block = ".1" if isinstance(stages[0], nn.ModuleList) else ""  # lucidrains: a list that is never called
            return [f"{dot}{decoder}.0{block}", f"{dot}{decoder}.1{block}"]
    return []


def _edm_stages(decoder: nn.ModuleDict, prefix: str) -> list[str]:
    """EDM's networks name their decoder 8x8_in0, 8x8_in1, 8x8_block0, ..., 16x16_up, 16x16_block0, ..."""
    blocks = [key for key in decoder if "_block" in key]
    last_of_stage = list({key.split("_")[0]: key for key in blocks}.values())
    bottleneck = [key for key in decoder if key.endswith("_in1")]
    return [f"{prefix}.{key}" for key in [*bottleneck, *last_of_stage[:2]]]


class FiniteCheck:
    """Whether all features of many forwards were finite; looks only at the end, for looking waits for the device."""

    def __init__(self) -> None:
        self._finite: dict[str, Tensor] = {}

    def add(self, features: Mapping[str, Tensor]) -> None:
        """Take in the features of one forward."""
        for name, feature in features.items():
            finite = feature.isfinite().all()
            self._finite[name] = finite & self._finite[name] if name in self._finite else finite

    def check(self) -> None:
        """Raise a FloatingPointError that names the first layer whose features are not finite."""
        for name, finite in self._finite.items():
            if not finite:
                raise FloatingPointError(
                    f"the features of {name!r} are not finite: the network's weights or its input are not"
                )
