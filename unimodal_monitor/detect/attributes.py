"""What a job holds, by dotted name: its submodules and their plain attributes."""

import difflib
import re
from collections.abc import Callable, Iterator

from torch import nn

EMA_NAME = re.compile(r"(^|_)ema(_|\d|$)|^E(ma|MA)|[a-z]E(ma|MA)$")
MACHINERY = frozenset(vars(nn.Module()))
"""The attributes of every module, which belong to torch."""


def class_names(value: object) -> set[str]:
    """The names of the object's class and all its bases: to know a library's class without importing it."""
    return {base.__name__ for base in type(value).__mro__}


def is_ema(path: str, value: object) -> bool:
    """Whether the last name of the path, or the class, says that this holds averaged weights."""
    is_named_so = EMA_NAME.search(path.rpartition(".")[2]) is not None
    return is_named_so or bool(class_names(value) & {"AveragedModel", "LitEma"})


def walk(module: nn.Module, *, stop: Callable[[str, object], bool], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Submodules and plain attributes by dotted name, outer ones first.

    Args:
        module: where to begin; is not among the results.
        stop: of a name and what it names: do not look inside.
        prefix: of all names.
    """
    yield from ((f"{prefix}{name}", value) for name, value in vars(module).items() if name not in MACHINERY)
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        yield path, child
        if not stop(path, child):
            yield from walk(child, stop=stop, prefix=f"{path}.")


def resolve(owner: nn.Module, path: str, *, argument: str) -> object:
    """What the dotted name leads to.

    Raises:
        ValueError: naming `argument`, the step that failed and the names that are there.
    """
    value: object = owner
    for name in path.split("."):
        if not hasattr(value, name):
            raise ValueError(
                f"{argument}={path!r}: {type(value).__name__} has no {name!r};"
                f" did you mean {', '.join(_similar(owner, path))}?"
            )
        value = getattr(value, name)
    return value


def _similar(owner: nn.Module, path: str) -> list[str]:
    names = [name for name, _ in walk(owner, stop=lambda *_: False)]
    children = [name for name, _ in owner.named_children()]
    return difflib.get_close_matches(path, names, n=3) or children or names
