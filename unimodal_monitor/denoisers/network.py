"""The call of the job's own module: argument order, condition, averaged weights, precision, output."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel

from unimodal_monitor.denoisers.base import Denoiser

TIME_NAMES = frozenset(
    {"t", "time", "times", "timestep", "timesteps", "sigma", "sigmas", "noise_level", "noise_labels", "c_noise"}
)


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside torch.compile's and DistributedDataParallel's wrappers."""
    inner = module.module if isinstance(module, DistributedDataParallel) else getattr(module, "_orig_mod", None)
    return unwrap(inner) if isinstance(inner, nn.Module) else module


def forward_parameters(module: nn.Module) -> dict[str, inspect.Parameter]:
    """What the unwrapped module's forward takes by name, in order; `*args` and `**kwargs` are left out."""
    try:
        parameters = inspect.signature(unwrap(module).forward).parameters
    except ValueError:  # a traced module, such as the Inception network of a metric, does not say
        return {}
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: parameter for name, parameter in parameters.items() if parameter.kind not in variadic}


def input_names(module: nn.Module) -> tuple[str, str]:
    """The names of the image and of the time argument of the module's forward; ("", "") where it has none.

    The time is the first argument with a usual name, otherwise the second one (torchcfm's `net(t, x)`, SD3's
    `(hidden_states, encoder_hidden_states, pooled_projections, timestep)`); the image is the first other argument.
    """
    names = list(forward_parameters(module))
    if len(names) < 2:
        return "", ""
    time = next((name for name in names if name in TIME_NAMES), names[1])
    return next(name for name in names if name != time), time


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """One value per image, (N,), as (N, 1, ...) on the images' device and in their precision."""
    return values.to(images).reshape(-1, *[1] * (images.ndim - 1))


class Network:
    """Calls the job's module with images, time and a fixed condition; changes nothing in it.

    Args:
        module: takes (N, C, ...) images and (N,) times, in either order; torch.compile's wrapper is taken off.
        weights: gives averaged tensors by the module's parameter and buffer names, or None for the module's own.
        condition: keyword arguments of every call; tensors of leading dimension 1 are expanded to the batch.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        weights: Callable[[], Mapping[str, Tensor] | None] | None = None,
        condition: Mapping[str, object] | None = None,
    ) -> None:
        self.module = unwrap(module)
        self.weights = weights
        self.condition = condition
        self._held: dict[str, Tensor] | None = None
        self._time_name = input_names(module)[1]
        self._positions = [name for name, p in forward_parameters(module).items() if p.kind is not p.KEYWORD_ONLY][:2]

    @property
    def weights_used(self) -> Literal["ema", "raw"]:
        """Which weights a call would use now."""
        return "raw" if self.weights is None or self.weights() is None else "ema"

    @contextmanager
    def holding_weights(self) -> Iterator[None]:
        """Read the averaged weights once for all calls in the block, in which no training step is made."""
        self._held = self._averaged()
        try:
            yield
        finally:
            self._held = None

    def __call__(self, images: Tensor, time: Tensor) -> Tensor:
        """The module's prediction.

        Args:
            images: (N, C, ...) as the module wants them scaled; cast to the precision of its parameters.
            time: (N,) as the module wants it scaled; keeps its precision, which half a float would not carry.

        Returns:
            (N, C, ...) float32; of an output with 2 C channels (a learned variance) the first half.

        Raises:
            ValueError: if the output holds no tensor of the images' shape.
        """
        dtype = _precision(self.module, default=images.dtype)
        inputs = images.to(dtype, memory_format=_memory_format(self.module, images))
        arguments, keywords = self._arguments(inputs, time)
        prediction = _first_tensor(self._forward(arguments, keywords))
        if prediction.ndim == images.ndim and prediction.shape[1] == 2 * images.shape[1]:
            prediction = prediction.chunk(2, dim=1)[0]
        if prediction.shape != images.shape:
            raise ValueError(
                f"{type(self.module).__name__} put out {tuple(prediction.shape)} for images of {tuple(images.shape)};"
                f" give net= a network whose output has its input's shape"
            )
        return prediction.float()

    def _arguments(self, images: Tensor, time: Tensor) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        keywords = {name: _fitted(value, images) for name, value in (self.condition or {}).items()}
        if self._time_name and self._time_name not in self._positions:
            return (images,), {self._time_name: time, **keywords}
        is_time_first = self._positions[:1] == [self._time_name]
        return ((time, images) if is_time_first else (images, time)), keywords

    def _forward(self, arguments: tuple[Tensor, ...], keywords: dict[str, Any]) -> Any:
        tensors = self._averaged() if self._held is None else self._held
        return (
            functional_call(self.module, tensors, arguments, keywords)
            if tensors
            else self.module(*arguments, **keywords)
        )

    def _averaged(self) -> dict[str, Tensor]:
        """The averaged tensors as the module's own are; none where the module's own are to be used."""
        averaged = None if self.weights is None else self.weights()
        if averaged is None:
            return {}
        own = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        return {name: tensor.detach().to(own[name]) for name, tensor in averaged.items()}


def weights_used(denoiser: Denoiser) -> Literal["ema", "raw"]:
    """Which weights the denoiser would use now; "raw" for a denoiser that is no adapter of this package."""
    call = getattr(denoiser, "call", None)
    return call.weights_used if isinstance(call, Network) else "raw"


def holding_weights(denoiser: Denoiser) -> AbstractContextManager[None]:
    """`Network.holding_weights` of the denoiser's network; nothing where the denoiser is no adapter of this package."""
    call = getattr(denoiser, "call", None)
    return call.holding_weights() if isinstance(call, Network) else nullcontext()


def _memory_format(module: nn.Module, images: Tensor) -> torch.memory_format:
    """channels_last for a module whose convolutions are laid out so: its first layer then has nothing to rearrange."""
    weights = (p for p in module.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1)
    weight = next(weights, None)
    is_last = weight is not None and images.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.preserve_format


def _precision(module: nn.Module, *, default: torch.dtype) -> torch.dtype:
    floats = (parameter.dtype for parameter in module.parameters() if parameter.is_floating_point())
    return next((dtype for dtype in floats if dtype.itemsize > 1), default)


def _fitted(value: object, images: Tensor) -> object:
    """A condition for this batch: a copy of every dict, because Meta's U-Net writes into the one it gets."""
    if isinstance(value, Mapping):
        return {name: _fitted(item, images) for name, item in value.items()}
    if not isinstance(value, Tensor):
        return value
    value = value.to(images) if value.is_floating_point() else value.to(images.device)
    return value.expand(len(images), *value.shape[1:]) if value.ndim and len(value) == 1 else value


def _first_tensor(output: Any) -> Tensor:
    """Of a tensor, `.sample`, {"sample": ...} or a sequence: the image."""
    output = getattr(output, "sample", output) if not isinstance(output, Tensor) else output
    if isinstance(output, Mapping) and output:
        output = output.get("sample", next(iter(output.values())))
    if isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise ValueError(f"the network put out {type(output).__name__}; a tensor, or one in .sample or first, would do")
    return output
