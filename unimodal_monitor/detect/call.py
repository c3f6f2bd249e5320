"""How a job calls its network: the image, the time, and all other arguments by name."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unimodal_monitor.denoisers.base import unwrap
from unimodal_monitor.denoisers.network import _first_tensor, forward_parameters, input_names


class CallError(ValueError):
    """The trial forward failed: how the job calls its network may tell why."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module, with its arguments by the names of the forward."""

    path: str
    module: nn.Module
    arguments: Mapping[str, Any]

    @classmethod
    def bind(cls, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> "Call":
        """Name the arguments; without names in the forward they are called "0", "1", ..."""
        names = list(forward_parameters(module)) or [str(i) for i in range(len(args))]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return cls(path, module, {name: _detached(value) for name, value in given.items()})

    @property
    def image(self) -> Tensor | None:
        """(N, C, ...) what is denoised."""
        image = self.arguments.get(input_names(self.module)[0] or "0")
        return image if isinstance(image, Tensor) and image.ndim > 1 and image.is_floating_point() else None

    @property
    def time(self) -> Tensor | None:
        """(N,) the times of the images."""
        time, image = self.arguments.get(input_names(self.module)[1] or "1"), self.image
        if image is None or not isinstance(time, Tensor | float | int):
            return None
        time = torch.as_tensor(time).detach().reshape(-1)
        return time.expand(len(image)) if time.numel() in (1, len(image)) else None

    @property
    def conditions(self) -> dict[str, Any]:
        """The other arguments with tensors in them."""
        inputs = (*(input_names(self.module)), "0", "1")
        others = {name: value for name, value in self.arguments.items() if name not in inputs}
        return {name: value for name, value in others.items() if next(tensors_in(value), None) is not None}

    def first(self) -> dict[str, Any]:
        """The conditions of the first image, with leading dimension 1."""
        num = 0 if self.image is None else len(self.image)
        return {name: _first_row(value, num) for name, value in self.conditions.items()}

    def __str__(self) -> str:
        given = ", ".join(f"{name} {describe(value)}" for name, value in self.arguments.items())
        return f"{self.path or type(self.module).__name__}({given})"


class CallRecorder:
    """Finds the outermost trained modules that a training step calls with images and times, and that give images."""

    def __init__(self, owner: nn.Module, *, with_itself: bool = False) -> None:
        self.owner, self.with_itself = owner, with_itself
        self.calls: list[Call] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the step in the block; compiled modules would keep the hooks, so that nothing is then recorded."""
        handles, begun = [], dict[str, Call]()
        modules = [
            (path, module)
            for path, module in self.owner.named_modules()
            if (path or self.with_itself) and _is_trained(module)
        ]
        for path, module in modules if not any(is_compiled(m) for m in self.owner.modules()) else ():

            def before(module: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
                with suppress(Exception):  # the training goes on
                    if torch.is_grad_enabled() and path not in begun:
                        begun[path] = Call.bind(path, unwrap(module), args, kwargs)

            def after(module: nn.Module, args: Any, kwargs: Any, output: Any, path: str = path) -> None:
                with suppress(Exception):
                    call, result = begun[path], _first_tensor(output)
                    gives_images = call.image is not None and result.shape[2:] == call.image.shape[2:]
                    if gives_images and call.time is not None and result.requires_grad:
                        self.calls.append(call)

            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        paths = {call.path for call in self.calls}
        inner = {path for path in paths if any(path != o and path.startswith(f"{o}." if o else "") for o in paths)}
        self.calls = list({call.path: call for call in self.calls if call.path not in inner}.values())


def is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile has wrapped it, or changed it in place."""
    return module._compiled_call_impl is not None or hasattr(module, "_orig_mod")


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def describe(value: object) -> str:
    """The shape of a tensor, with its type if it is not float32; other values as they are."""
    if isinstance(value, Tensor):
        kind = "" if value.dtype == torch.float32 else f" {str(value.dtype).removeprefix('torch.')}"
        return f"{tuple(value.shape)}{kind}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name!r}: {describe(item)}' for name, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(describe, value))}]"
    return f"{value!r:.40}"


def tensors_in(value: object) -> Iterator[Tensor]:
    """All tensors in nested dicts, lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def _detached(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _detached(item) for name, item in value.items()}
    return value.detach() if isinstance(value, Tensor) else value


def _first_row(value: Any, num: int) -> Any:
    if isinstance(value, Mapping):
        return {name: _first_row(item, num) for name, item in value.items()}
    is_batch = isinstance(value, Tensor) and value.ndim > 0 and len(value) == num
    return value[:1].detach().clone() if is_batch else value
