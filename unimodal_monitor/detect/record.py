"""Input, output and gradient of the trained network, recorded on the job's own training steps."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from unimodal_monitor.denoisers.base import unwrap
from unimodal_monitor.denoisers.network import _first_tensor
from unimodal_monitor.detect.call import Call, CallRecorder, is_compiled, tensors_in
from unimodal_monitor.detect.conditions import ConditionsSeen
from unimodal_monitor.detect.parts import as_tokens, flat, parts_of
from unimodal_monitor.detect.space import middle

MAX_ROWS = 16  # images of one step
MAX_CALLS = 4  # of one step
NUM_ROWS, NUM_STEPS, MAX_STEPS = 12, 3, 32  # enough images and steps, and when to give up
NUM_STEPS_OF_ONE_TIME = 6  # where the images of a step share their time, which may choose one of several networks


@dataclass(frozen=True, eq=False)
class Row:
    """One image of one training step; flat float64 tensors of the D values in its middle, on the CPU."""

    time: float
    noised: Tensor  # what the network got
    output: Tensor
    gradient: Tensor  # of the loss, at the output
    noise: Tensor | None  # the normal draw of this shape, if there was one
    image: Tensor | None  # of the batch, if one has this shape
    is_joint: bool = True  # whether noise and image explain the input together; otherwise one of them is wrong
    call: int = 0  # number of the call in its step: some steps call the network for a regularizer, too


@dataclass(eq=False)
class Recorder:
    """Records some images of each training step in a `recording` block.

    It runs no forward, draws no random number and changes no value; outside the block nothing is left of it.
    """

    owner: nn.Module
    network: nn.Module
    conditions: ConditionsSeen
    rows: list[Row] = field(default_factory=list)
    num_steps: int = 0
    num_blocks: int = 0
    shapes: set[tuple[int, ...]] = field(default_factory=set)  # of the network's input, without the batch
    is_half: bool = False  # whether outputs or gradients are of half precision
    inner: nn.Module | None = None  # of the network, where the training calls that and not the network itself
    has_own_times: bool = False  # whether the images of a step have times of their own
    others: set[str] = field(default_factory=set)  # networks that were called in steps without a call of this one
    failure: str = ""  # the first error of the recording itself, which never reaches the training

    @property
    def is_done(self) -> bool:
        """Whether enough was seen, or nothing will be."""
        num_first = sum(row.call == self.rows[0].call for row in self.rows)
        is_enough = num_first >= NUM_ROWS and len({row.time for row in self.rows}) >= 3
        least = NUM_STEPS if self.has_own_times else NUM_STEPS_OF_ONE_TIME
        is_enough = is_enough and self.num_steps >= least and not self.conditions.is_open
        return is_enough or self.num_blocks >= MAX_STEPS or bool(self.failure)

    def restart(self) -> None:
        """Record later steps in place of these."""
        self.rows.clear()
        self.num_steps = self.num_blocks = 0

    @property
    def obstacle(self) -> str | None:
        """Why nothing can be recorded, if so."""
        for module in self.owner.modules():
            inner = unwrap(module)
            if is_compiled(module) and inner is not self.network and self.network in set(module.modules()):
                return f"{type(inner).__name__} is compiled as a whole, around the network"
        return "the training step is compiled as a whole" if getattr(self.owner, "_compiler_ctx", None) else None

    @contextmanager
    def looking(self) -> Iterator[None]:
        """See in the step in the block whether the training calls the network, or one inside of it."""
        seen = CallRecorder(self.network, with_itself=True)
        with nullcontext() if any(map(is_compiled, self.owner.modules())) else seen.recording():
            yield
        if len(seen.calls) == 1 and seen.calls[0].module is not self.network:
            self.inner = seen.calls[0].module

    @contextmanager
    def recording(self, batch: object) -> Iterator[None]:
        """Record the step in the block, if the network is called there with gradients."""
        called = self.network if self.inner is None else self.inner
        module = next((m for m in self.owner.modules() if unwrap(m) is called), called)
        draws, others = _NormalDraws(), CallRecorder(self.owner)  # the latter sees nothing where modules are compiled
        calls = _CallsOf(called, draws)
        rest = (m for m in self.owner.modules() if m is not module and m is not self.network)
        if not any(map(is_compiled, rest)):  # which would run uncompiled below a dispatch mode
            draws.start()
        try:
            with others.recording(), calls.recording(module):
                yield
        finally:
            draws.stop()
        self.num_blocks += 1
        self.failure = self.failure or calls.failure
        try:
            kept = [self._keep(call, number, batch, draws.drawn) for number, call in enumerate(calls.complete)]
        except Exception as error:
            self.failure = self.failure or f"{type(error).__name__}: {error}"
            return
        self.num_steps += any(kept)
        if not calls.seen:
            inside = set(self.network.modules())
            self.others |= {c.path for c in others.calls if c.module not in inside and called not in c.module.modules()}

    def _keep(self, step: Mapping[str, Any], number: int, batch: object, drawn: "Sequence[Draw]") -> bool:
        """Make rows of the images of one call; whether it was of a kind that can be read."""
        noised, output, gradient = step["noised"], step["output"], step["gradient"]
        self.is_half = self.is_half or min(t.dtype.itemsize for t in (output, gradient)) < 4
        if output.ndim == noised.ndim and output.shape[1] == 2 * noised.shape[1]:  # a learned variance
            output, gradient = output[:, : noised.shape[1]], gradient[:, : noised.shape[1]]
        if output.shape != noised.shape:
            return False
        self.conditions.add(step["call"])
        self.shapes.add(tuple(noised.shape[1:]))
        is_of_another_size = self.rows and flat(noised[:1]).shape[1] != len(self.rows[0].noised)
        if is_of_another_size:
            return False
        shape, num = noised.shape[1:], len(noised)
        noises = [flat(tensor) for known, tensor, _ in drawn if known == shape and len(tensor) >= num]
        noises = noises or [flat(tokens) for _, _, tensor in drawn if (tokens := as_tokens(tensor, noised)) is not None]
        given = [tensor for tensor in tensors_in(batch) if len(tensor) >= num]
        images = [flat(tensor) for tensor in given if tensor.shape[1:] == shape]
        images = images or [flat(tokens) for t in given if (tokens := as_tokens(t[:num], noised)) is not None]
        values = (flat(noised), flat(output), flat(gradient))
        noise, image, is_joint = parts_of(values[0], images, noises)
        for i, time in enumerate(step["time"].tolist()):
            noised_D, output_D, gradient_D = (value[i] for value in values)
            own_noise, own_image = (None if value is None else value[i] for value in (noise, image))
            if 0 < float(gradient_D.norm()) < float("inf") and bool(output_D.isfinite().all()):
                self.rows.append(Row(time, noised_D, output_D, gradient_D, own_noise, own_image, is_joint, number))
        self.has_own_times = self.has_own_times or len(set(step["time"].tolist())) > 1
        return True


class _CallsOf:
    """The calls of a network with gradients in one training step: input, output, and the gradient at the output.

    An error never reaches the training; `failure` names the first.
    """

    def __init__(self, network: nn.Module, draws: "_NormalDraws") -> None:
        self.network, self.draws, self.failure = network, draws, ""
        self.seen: list[dict[str, Any]] = []
        self._handles: list[Any] = []

    @property
    def complete(self) -> list[dict[str, Any]]:
        """Those that had an image, a time, and a gradient."""
        return [call for call in self.seen if "gradient" in call and "noised" in call]

    @contextmanager
    def recording(self, module: nn.Module) -> Iterator[None]:
        """Record what `module` is called with, the network or a compiled wrapper of it."""
        impl = module._compiled_call_impl
        if impl is None:
            before, after = module.register_forward_pre_hook, module.register_forward_hook
            self._handles.append(before(lambda m, a, k: self._softly(self._before, a, k), with_kwargs=True))
            self._handles.append(after(lambda m, a, k, output: self._softly(self._after, output), with_kwargs=True))
        else:  # compiled in place, hooks and all

            def call(*args: Any, **kwargs: Any) -> Any:
                self._softly(self._before, args, kwargs)
                output = impl(*args, **kwargs)
                self._softly(self._after, output)
                return output

            module._compiled_call_impl = call
        try:
            yield
        finally:
            for handle in self._handles:
                handle.remove()
            if impl is not None:
                module._compiled_call_impl = impl

    def _softly(self, work: Callable[..., None], *args: Any) -> None:
        try:
            work(*args)
        except Exception as error:
            self.failure = self.failure or f"{type(error).__name__}: {error}"

    def _before(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if torch.is_grad_enabled() and len(self.seen) < MAX_CALLS:
            self.draws.stop()  # before a compiled network begins
            call = Call.bind("", self.network, args, kwargs)
            image, time, seen = call.image, call.time, dict[str, Any](call=call)
            if image is not None and time is not None:
                seen |= {"noised": image[:MAX_ROWS].clone(), "time": time[:MAX_ROWS].cpu().double()}
            self.seen.append(seen)

    def _after(self, output: Any) -> None:
        if self.seen and "output" not in self.seen[-1] and torch.is_grad_enabled():
            tensor, call = _first_tensor(output), self.seen[-1]

            def keep_gradient(gradient: Tensor) -> None:
                call.setdefault("gradient", gradient.detach()[:MAX_ROWS].clone())

            if tensor.requires_grad:
                call["output"] = tensor.detach()[:MAX_ROWS].clone()
                self._handles.append(tensor.register_hook(keep_gradient))  # type: ignore[no-untyped-call]


Draw = tuple[torch.Size, Tensor, Tensor]  # shape of one image, the middle of all, and the first images as a whole


class _NormalDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the shape and the middle of every normal tensor that is drawn: the noise, by provenance."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.drawn: list[Draw] = []
        self._is_on = False

    def start(self) -> None:
        self.__enter__()  # type: ignore[no-untyped-call]
        self._is_on = True

    def stop(self) -> None:
        if self._is_on and _get_current_dispatch_mode_stack()[-1:] == [self]:
            self._is_on = False
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        is_draw = any(name in str(func) for name in ("randn", "normal"))
        if is_draw and isinstance(result, Tensor) and result.ndim > 1:
            tensor = result.detach()
            self.drawn.append((tensor.shape[1:], middle(tensor).clone(), tensor[:MAX_ROWS].clone()))
        return result
