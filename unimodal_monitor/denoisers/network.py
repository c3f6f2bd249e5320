"""The call of the job's own network: argument order, condition, averaged weights, precision, output."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, InitVar, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from unimodal_monitor.denoisers.base import Denoiser, unwrap

TIME_ARGS = {"t", "time", "times", "timestep", "timesteps", "sigma", "sigmas", "noise_level", "noise_labels", "c_noise"}


@dataclass(eq=False, repr=False)
class NetworkDenoiser(Denoiser):
    """Base of the denoisers that call a job's network; nothing in the network is changed."""

    net: InitVar[nn.Module]  # takes (N, C, ...) images and (N,) times, in either order
    _: KW_ONLY
    weights: Callable[[], Mapping[str, Tensor] | None] | None = None  # gives None while the network's own are used
    condition: Mapping[str, object] | None = None  # tensors of leading dimension 1 are expanded to the batch

    def __post_init__(self, net: nn.Module) -> None:
        self.network = unwrap(net)
        self._held: dict[str, Tensor] | None = None
        self._time_name = input_names(net)[1]
        self._positions = [name for name, p in forward_parameters(net).items() if p.kind is not p.KEYWORD_ONLY][:2]

    @property
    def weights_used(self) -> Literal["ema", "raw"]:
        """See `Denoiser`."""
        return "raw" if self.weights is None or self.weights() is None else "ema"

    @contextmanager
    def holding_weights(self) -> Iterator[None]:
        """See `Denoiser`."""
        self._held = self._averaged()
        try:
            yield
        finally:
            self._held = None

    def predict(self, images: Tensor, time: Tensor) -> Tensor:
        """The network's prediction, (N, C, ...) float32, for images (N, C, ...) and times (N,) in its own scaling.

        Images are cast to the precision of its parameters; times are not, because half a float cannot represent
        them. Of an output with 2 C channels (a learned variance) the first half is taken.
        """
        prediction = _first_tensor(self._forward(_cast(images, self.network), time))
        if prediction.ndim == images.ndim and prediction.shape[1] == 2 * images.shape[1]:
            prediction = prediction.chunk(2, dim=1)[0]
        shape, expected = tuple(prediction.shape), tuple(images.shape)
        if shape != expected:
            raise ValueError(f"net: {type(self.network).__name__} returned {shape} for {expected}; need the same shape")
        return prediction.float()

    def _forward(self, images: Tensor, time: Tensor) -> Any:
        keywords = {name: _fitted(value, images) for name, value in (self.condition or {}).items()}
        arguments = [time, images] if self._positions[:1] == [self._time_name] else [images, time]
        if self._time_name and self._time_name not in self._positions:
            arguments, keywords = [images], {self._time_name: time, **keywords}
        tensors = self._averaged() if self._held is None else self._held
        try:
            if tensors:
                return functional_call(self.network, tensors, tuple(arguments), keywords)
            return self.network(*arguments, **keywords)
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"net: {self._failed(images, error)}") from error

    def _failed(self, images: Tensor, error: Exception) -> str:
        given = ", ".join(f"{name} {_described(value)}" for name, value in (self.condition or {}).items())
        return (
            f"{type(self.network).__name__}, called with images {tuple(images.shape)}, times and"
            f" {given or 'no condition'}, raised {type(error).__name__}: {error}; the images of the probe set must have"
            " the shape that the training step passes (give from_datasets a transform=), and condition= must have"
            " each argument that it passes beside images and times"
        )

    def _averaged(self) -> dict[str, Tensor]:
        """The averaged tensors with device and precision of the network's own; none where its own are to be used."""
        averaged = None if self.weights is None else self.weights()
        own = {} if averaged is None else named_tensors(self.network)
        return {name: tensor.detach().to(own[name]) for name, tensor in (averaged or {}).items()}


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def forward_parameters(module: nn.Module) -> dict[str, inspect.Parameter]:
    """The named parameters of the unwrapped module's forward, in order, without `*args` and `**kwargs`."""
    try:
        parameters = inspect.signature(unwrap(module).forward).parameters
    except ValueError:  # a traced module, such as the Inception network of a metric, has no signature
        return {}
    return {name: p for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def input_names(module: nn.Module) -> tuple[str, str]:
    """The names of the image and of the time argument of the module's forward; ("", "") for a forward without names.

    The time is the first argument with a usual name, otherwise the second one (torchcfm's `net(t, x)`, SD3's
    `(hidden_states, encoder_hidden_states, pooled_projections, timestep)`); the image is the first other argument.
    """
    names = list(forward_parameters(module))
    if len(names) < 2:
        return "", ""
    time = next((name for name in names if name in TIME_ARGS), names[1])
    return next(name for name in names if name != time), time


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """One value per image, (N,), as (N, 1, ...) on the images' device and in their precision."""
    return values.to(images).reshape(-1, *[1] * (images.ndim - 1))


def _cast(images: Tensor, module: nn.Module) -> Tensor:
    """Images in the precision of the module's parameters and the memory format of its convolutions."""
    floats = (parameter.dtype for parameter in module.parameters() if parameter.is_floating_point())
    dtype = next((dtype for dtype in floats if dtype.itemsize > 1), images.dtype)
    weight = next((p for p in module.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1), None)
    is_last = weight is not None and images.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return images.to(dtype, memory_format=torch.channels_last if is_last else torch.preserve_format)


def _fitted(value: object, images: Tensor) -> object:
    """A condition for this batch. Dicts are copied, because Meta's U-Net writes into the one it gets."""
    if isinstance(value, Mapping):
        return {name: _fitted(item, images) for name, item in value.items()}
    if not isinstance(value, Tensor):
        return value
    value = value.to(images) if value.is_floating_point() else value.to(images.device)
    return value.expand(len(images), *value.shape[1:]) if value.ndim and len(value) == 1 else value


def _described(value: object) -> str:
    if isinstance(value, Mapping):
        return f"({', '.join(f'{name} {_described(item)}' for name, item in value.items())})"
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _first_tensor(output: Any) -> Tensor:
    """The image in a tensor, `.sample`, {"sample": ...} or a sequence."""
    output = getattr(output, "sample", output) if not isinstance(output, Tensor) else output
    if isinstance(output, Mapping) and output:
        output = output.get("sample", next(iter(output.values())))
    if isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise ValueError(f"net returned {type(output).__name__}; need a tensor, alone, first or in .sample")
    return output
