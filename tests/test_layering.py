"""Imports go one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import unimodal_monitor

PACKAGE = Path(unimodal_monitor.__file__).parent
ORDER = [
    *("stats", "denoisers", "forward", "budget", "detect", "data", "signals", "probes"),
    *("forwards", "measure", "witnesses", "copies", "alarm", "survey", "check", "glance", "monitor", "report"),
    *("callback", "theory", "demo", "cli"),
]
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
LATE = {"matplotlib", "PIL", "diffusers", "wandb", "sklearn", "tensorboard"}


def imports_of(path, *, top_level):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def rank(name):
    return ORDER.index(name.split(".")[0])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_comes_before_it(path):
    """In the order of the way of the data; a folder counts as one module."""
    own = rank(path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."))
    for name in imports_of(path, top_level=False):
        if name.startswith("unimodal_monitor."):
            assert rank(name.removeprefix("unimodal_monitor.")) <= own, name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_where_they_are_used(path):
    """Lightning only by the callback and the demo; plotting and the optional ones inside functions."""
    names = {name.split(".")[0] for name in imports_of(path, top_level=True)}
    assert not names & LATE
    if path.stem not in ("callback", "demo"):
        assert not {name.split(".")[0] for name in imports_of(path, top_level=False)} & {
            "lightning",
            "pytorch_lightning",
        }


def loads(statement, module):
    script = f"{statement}; import sys; print({module!r} in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return run.stdout.strip() == "True"


def test_the_package_does_not_import_lightning_until_the_callback_is_asked_for():
    """The second line shows that the first can fail."""
    assert not loads("import unimodal_monitor", "pytorch_lightning")
    assert loads("from unimodal_monitor import UnimodalMonitor", "pytorch_lightning")
