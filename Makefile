# Both set-up commands make their own virtual environment; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint slow bench peers clean

# Train on the embedded demo cohort and report.
demo: $(VENV)/.installed
	$(BIN)/osteofusion fit --config binary.yaml

# All tests that need minutes; `make slow` runs the rest.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

# What the package costs beside bare loops and libraries, into the README; what each fusion costs.
bench: $(VENV)/.installed-dev
	$(BIN)/python tests/benchmarks/run.py --readme README.md
	$(BIN)/python tests/benchmarks/fusions.py

# Other packages on the same work, in environments of their own (several GB): make peers ROOT=DIR
peers: $(VENV)/.installed-dev
	$(BIN)/python tests/benchmarks/peers.py --root $(ROOT) --folds 3 --epochs 3

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
