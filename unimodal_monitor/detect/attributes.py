"""Submodules and plain attributes of a job by dotted name."""

import difflib
import re
from collections.abc import Callable, Iterator

from torch import nn

EMA_NAME = re.compile(r"(^|_)ema(_|\d|$)|^E(ma|MA)|[a-z]E(ma|MA)$")
MACHINERY = frozenset(vars(nn.Module()))  # attributes that torch gives every module


def class_names(value: object) -> set[str]:
    """Names of the object's class and its bases, which identify a library's class without importing it."""
    return {base.__name__ for base in type(value).__mro__}


def is_ema(path: str, value: object) -> bool:
    """Whether the last name of the path, or the class, is one of averaged weights."""
    is_named_so = EMA_NAME.search(path.rpartition(".")[2]) is not None
    return is_named_so or bool(class_names(value) & {"AveragedModel", "LitEma"})


def walk(module: nn.Module, *, stop: Callable[[str, object], bool], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Submodules and plain attributes by dotted name, outer ones first, none from inside one that `stop` is true of."""
    yield from ((f"{prefix}{name}", value) for name, value in vars(module).items() if name not in MACHINERY)
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        yield path, child
        if not stop(path, child):
            yield from walk(child, stop=stop, prefix=f"{path}.")


def resolve(owner: nn.Module, path: str, *, argument: str) -> object:
    """The object with this dotted name in the owner; otherwise a ValueError that begins with `argument`."""
    value: object = owner
    for name in path.split("."):
        if not hasattr(value, name):
            known = [known for known, _ in walk(owner, stop=lambda *_: False)]
            similar = ", ".join(difflib.get_close_matches(path, known, n=3) or dict(owner.named_children()) or known)
            raise ValueError(f"{argument}={path!r}: {type(value).__name__} has no {name!r}; did you mean {similar}?")
        value = getattr(value, name)
    return value
