# Both set-up commands make their own virtual environment; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint slow bench clean

# Train on the embedded demo cohort and report.
demo: $(VENV)/.installed
	$(BIN)/osteofusion fit --config binary.yaml

# All tests that need minutes; `make slow` runs the rest.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

# Parameters and time of each fusion, relative to concatenation.
bench: $(VENV)/.installed-dev
	$(BIN)/python tests/benchmarks/fusions.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -e ".[all]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
