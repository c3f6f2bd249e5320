"""The conditions that the training steps pass, held against those that the monitor passes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from unimodal_monitor.detect.call import Call, describe
from unimodal_monitor.detect.condition import LABEL_NAMES

ENOUGH = 100  # images without the monitor's value, of which a tenth would have it if it were dropped as usual
DROPPED = ("label_dropout", "class_dropout_prob", "cond_drop_prob", "uncond_prob", "dropout_prob")  # inside of networks
NO_CONDITION = ("mask", "augment")  # of arguments that a network does without
LAST_RESORT = "condition='batch' takes that of the first image seen, as a last resort"


def like_the_job(condition: Mapping[str, Any], call: Call | None) -> dict[str, Any]:
    """Those conditions that are class ids, as one-hot vectors, where the job passes such."""
    result = {}
    for name, value in condition.items():
        seen = None if call is None else call.arguments.get(name)
        if not isinstance(seen, Tensor) or not isinstance(value, Tensor) or value.is_floating_point():
            continue
        if seen.is_floating_point() and seen.ndim == value.ndim + 1 and int(value.max()) < seen.shape[-1]:
            result[name] = one_hot(value, seen.shape[-1]).to(seen.dtype)
    return result


class ConditionsSeen:
    """Collects the conditions of training steps.

    Args:
        network: What is called.
        passed: What the monitor passes, by name.
    """

    def __init__(self, network: nn.Module, passed: Mapping[str, Any]) -> None:
        self.network, self.passed = network, passed
        self.always: dict[str, str] = {}  # passed in all steps, with shape and type
        self.unlike: dict[str, str] = {}  # of another kind than the monitor's
        self.num_images = 0
        self._num_equal: dict[str, int] = {}
        self._highest: dict[str, int] = {}

    def add(self, call: Call) -> None:
        """One training step."""
        image, conditions = call.image, call.conditions
        if image is None:
            return
        own = {name: describe(value) for name, value in conditions.items() if not _is_like(value, image)}
        self.always = own if not self.num_images else {name: self.always[name] for name in self.always if name in own}
        self.num_images += len(image)
        for name, value in self.passed.items():
            seen = conditions.get(name)
            if not isinstance(value, Tensor) or not isinstance(seen, Tensor) or seen.is_complex():
                continue
            if seen.is_floating_point() != value.is_floating_point() or seen.shape[2:] != value.shape[2:]:
                self.unlike[name] = f"{describe(seen)}, the monitor {describe(value)}"
            elif seen.ndim == value.ndim and seen.shape[1:] == value.shape[1:]:
                slack = 0.02 * value.abs().max() if value.is_floating_point() else 0
                seen, value = seen.float(), value.to(seen.device).float()
                equal = ((seen - value).abs() <= slack).reshape(len(seen), -1).all(1)
                self._num_equal[name] = self._num_equal.get(name, 0) + int(equal.sum())
                self._highest[name] = max(self._highest.get(name, 0), int(seen.max()))

    @property
    def is_open(self) -> bool:
        """Whether more images may tell that the monitor's value is one of the training's."""
        return self.num_images < ENOUGH and any(self._is_suspect(name) for name in self._num_equal)

    def difference(self) -> str | None:
        """What is wrong with the monitor's conditions, and what to give; None if nothing is known to be."""
        name = type(self.network).__name__
        for what, seen in self.always.items():
            is_needed = what not in self.passed and not any(word in what for word in NO_CONDITION)
            if is_needed and not (what in LABEL_NAMES and self._drops_inside()):
                return (
                    f"the training steps pass {what} {seen} to {name}, the monitor passes none; give"
                    f" condition={{{what!r}: ...}} that means no condition, or None if it needs none; {LAST_RESORT}"
                )
        for what, both in self.unlike.items():
            return f"the training steps pass {what} {both}; give condition={{{what!r}: ...}} of the same kind"
        suspects = [what for what in self._num_equal if self._is_suspect(what)]
        if self.num_images < ENOUGH or not suspects:
            return None
        value = _named(self.passed[suspects[0]])
        return (
            f"{suspects[0]} was never {value} in {self.num_images} images of the training steps:"
            f" {name} is not trained without a condition; {LAST_RESORT}"
        )

    def _is_suspect(self, name: str) -> bool:
        """Whether it is zero, or a class id above all that were seen, was never seen, and is not dropped inside."""
        value = self.passed[name]
        is_none = not bool(value.any()) if value.is_floating_point() else int(value.max()) > self._highest[name]
        return is_none and self._num_equal[name] == 0 and not self._drops_inside()

    def _drops_inside(self) -> bool:
        for module in self.network.modules():
            for name in DROPPED:
                chance = getattr(module, name, None)
                is_of_classes = name != "dropout_prob" or hasattr(module, "embedding_table")
                if isinstance(chance, float | int) and chance > 0 and is_of_classes:
                    return True
        return False


def _is_like(value: object, image: Tensor) -> bool:
    """Whether it is an image, as for self-conditioning."""
    return isinstance(value, Tensor) and value.shape == image.shape


def _named(value: Tensor) -> str:
    return "zero" if value.is_floating_point() else str(int(torch.as_tensor(value).max()))
