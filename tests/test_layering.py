"""The order of the folders: imports go one way, and what is slow to import is imported where it is used."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import unimodal_monitor

PACKAGE = Path(unimodal_monitor.__file__).parent
ORDER = (
    {"stats", "denoisers"},
    {"theory"},  # of denoisers alone, so that everything above may use its closed forms
    {"forward"},
    {"detect", "data", "probes", "signals"},
    {"method", "alarm", "copies"},
    {"check"},
    {"report"},
    {"budget", "reaction", "resume", "checker"},
    {"monitor"},
    {"callback"},
    {"demo"},
    {"cli"},
)
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
LATE = {"matplotlib", "PIL", "diffusers", "wandb", "sklearn", "tensorboard"}
LIGHTNING = {"lightning", "pytorch_lightning"}
every_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))


def imports_of(path, *, top_level):
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


def rank(folder):
    return next(number for number, folders in enumerate(ORDER) if folder in folders)


@every_module
def test_a_module_imports_from_its_own_folder_and_from_those_before_it(path):
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for name in imports_of(path, top_level=False):
        package, _, inner = name.partition(".")
        if package == "unimodal_monitor" and inner:
            folder = inner.split(".")[0]
            assert folder == own or rank(folder) < rank(own), name


@every_module
def test_packages_that_are_heavy_or_optional_are_imported_where_they_are_used(path):
    """Lightning by the callback and the demo alone."""
    names = {name.split(".")[0] for name in imports_of(path, top_level=True)}
    assert not names & LATE
    if path.stem not in ("callback", "demo"):
        assert not {name.split(".")[0] for name in imports_of(path, top_level=False)} & LIGHTNING


@every_module
def test_a_file_holds_one_idea(path):
    assert len(path.read_text().splitlines()) <= 250


@pytest.mark.parametrize("name", unimodal_monitor.__all__)
def test_a_public_name_comes_with_an_example(name):
    assert ">>> " in (inspect.getdoc(getattr(unimodal_monitor, name)) or "")


def test_the_package_does_not_import_lightning_until_the_callback_is_asked_for():
    is_loaded = "print('pytorch_lightning' in sys.modules)"
    script = f"import sys, unimodal_monitor; {is_loaded}; unimodal_monitor.UnimodalMonitor; {is_loaded}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
