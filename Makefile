# Two commands for a fresh machine with Python >= 3.10 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-all lint clean

demo: $(VENV)/.installed
	$(BIN)/unimodal-monitor demo

test: lint
	$(BIN)/python -m pytest -q -n 2

test-all: lint
	$(BIN)/python -m pytest -q -n 2 -m "slow or not slow"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e ".[all]"
	touch $@

clean:
	rm -rf $(VENV) unimodal_demo .pytest_cache .mypy_cache .ruff_cache
