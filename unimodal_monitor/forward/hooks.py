"""Hooks: they exist only inside a check, pool inside the hook, and end a forward whose output is not needed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn


class LayersDone(BaseException):
    """Ends a forward after the last hooked layer; never leaves `Capture.run`.

    Not an Exception: a network that catches exceptions must not catch it.
    """


class Capture:
    """Runs forwards and keeps the pooled output of some layers, which are given by name."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        self.layers = layers
        self.features: dict[str, Tensor] = {}
        self.spread: dict[str, Tensor] = {}
        self._finite: dict[str, Tensor] = {}
        self._to_output = False

    def run(self, forward: Callable[[], Any], *, to_output: bool = False) -> Any:
        """One forward; then `features` has (N, D) by layer.

        Args:
            forward: Calls the network.
            to_output: Run to the output, which is returned, in place of ending after the last hooked layer, and keep
                the (N,) `spread` of each layer.

        Raises:
            ValueError: If a layer was not called, or twice.
        """
        self.features, self.spread, self._to_output = {}, {}, to_output
        output = None
        with suppress(LayersDone):
            output = forward()
        silent = [name for name in self.layers if name not in self.features]
        if silent:
            raise ValueError(f"layer: the forward never called {', '.join(silent)}; choose layers that it calls")
        return output

    def check_finite(self) -> None:
        """Raise a FloatingPointError that names a layer with features that were not finite; waits for the device."""
        for name, is_finite in self._finite.items():
            if not is_finite:
                raise FloatingPointError(
                    f"the features of {name!r} are not finite: the network's weights or its input are not"
                )

    def hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        """The forward hook of one layer."""

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            if name in self.features:
                raise ValueError(f"layer={name!r} is called more than once in a forward; choose another")
            self.features[name] = features = mean_pool(output).detach()
            is_finite = features.isfinite().all()
            self._finite[name] = is_finite & self._finite.get(name, is_finite)
            if self._to_output:
                self.spread[name] = spread(output).detach()
            elif len(self.features) == len(self.layers):
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


def mean_pool(output: Any) -> Tensor:
    """(N, D) mean over space or tokens of a layer's output (N, C, *space), (N, tokens, D) or (N, D), in float32.

    Of a (text, image) pair of token streams the image is taken, of a (map, skips) pair the map.
    """
    values = _tensor_of(output).float()
    if values.ndim == 2:
        return values.clone()  # a later layer may write into what this one put out
    return values.mean(1) if values.ndim == 3 else values.flatten(2).mean(2)


def spread(output: Any) -> Tensor:
    """(N,) standard deviation of all that a layer puts out for an image, over channels and space or tokens together."""
    return _tensor_of(output).float().flatten(1).std(1, correction=0)


def _tensor_of(output: Any) -> Tensor:
    if isinstance(output, tuple | list) and output:
        second = output[1] if len(output) > 1 else None
        is_pair_of_streams = isinstance(second, Tensor) and second.ndim == 3
        output = second if is_pair_of_streams else output[0]
    if not isinstance(output, Tensor) or output.ndim < 2:
        raise ValueError(f"a layer must output a tensor of two dimensions or more, got {type(output).__name__}")
    return output
