# Two commands for a fresh machine with Python >= 3.10 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OLDEST := $(VENV)-oldest
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
PYTEST := -m pytest -q -n 2

.PHONY: demo test test-all test-oldest lint build clean

demo: $(VENV)/.installed
	$(BIN)/unimodal-monitor demo

test: lint
	$(BIN)/python $(PYTEST)

test-all: lint $(VENV)/.installed-jobs
	$(BIN)/python $(PYTEST) -m "slow or not slow"

# Python 3.10 or 3.11: later ones have no wheels of these versions. Old libraries warn about newer ones: no errors here.
test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python $(PYTEST) -W default --disable-warnings

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The wheel, unpacked beside the repository's package and run from there.
build: $(VENV)/.installed-dev
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	$(BIN)/python $(PIP_INSTALL) --no-deps --target build/wheel dist/*.whl
	test -f build/wheel/unimodal_monitor/py.typed
	cd build/wheel && PYTHONPATH="$$PWD" bin/unimodal-monitor --version

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e ".[all]"
	touch $@

$(VENV)/.installed-jobs: $(VENV)/.installed-dev
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e ".[jobs]"
	touch $@

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python $(PIP_INSTALL) --prefer-binary -c constraints-oldest.txt -e ".[wandb,diffusers,test]"
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) build dist unimodal_demo .pytest_cache .mypy_cache .ruff_cache
