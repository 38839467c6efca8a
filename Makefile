# One word for each task; the virtual environment is made on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test check docs clean

help:
	@echo "make demo   run the main job on the embedded emulator"
	@echo "make test   run the test suite"
	@echo "make check  format, lint and types"

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(VENV)/.ready
	$(BIN)/python examples/privacy.py

test: $(VENV)/.ready
	$(BIN)/python -X dev -m pytest

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist
