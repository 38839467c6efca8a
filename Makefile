# One word for each task; virtual environments are made on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := python -m pip install --quiet --disable-pip-version-check

# What `make test-pythons` looks for, besides PYTHON.
OTHERS ?= python3.12 python3.13 python3.14

# One test file or more of each floor, for the other versions: about a minute.
# aiotwhelp works on aiohttp 3.14.0, but its own decompression is bounded from 3.14.2 on.
QUICK_TESTS := $(addprefix tests/test_,headers.py routes.py apis.py clock.py quota.py limiter.py \
	retries.py auth.py help.py session.py session_auth.py cancellation.py emulator.py)

.PHONY: help demo test test-lowest test-pythons check format clean

help:
	@echo "make demo          run the main job on the embedded emulator"
	@echo "make test          run the test suite"
	@echo "make check         format, lint and types"
	@echo "make format        mend what can be mended by itself"
	@echo "make test-lowest   run the tests on the lowest declared versions"
	@echo "make test-pythons  run the tests on the other Pythons that are here"

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP) --editable '.[dev]'
	@touch $@

demo: $(VENV)/.ready
	$(BIN)/python examples/privacy.py

test: $(VENV)/.ready
	$(BIN)/python -X dev -m pytest

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

build/lowest/.ready: pyproject.toml
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/$(PIP) --editable '.[dev]' aiohttp==3.14.0 oauthlib==3.2.0 tenacity==9.1.2
	@touch $@

test-lowest: build/lowest/.ready
	build/lowest/bin/python -m pytest -p no:cacheprovider -q $(QUICK_TESTS)

# A Python that is not installed, or has no working venv, is named and passed over.
test-pythons:
	@for python in $(OTHERS); do \
	  if ! $$python -c 'import venv' 2>/dev/null; then echo "$$python: not here"; continue; fi; \
	  $$python -m venv build/$$python && \
	  build/$$python/bin/$(PIP) --editable '.[dev]' && \
	  build/$$python/bin/python -X dev -m pytest -p no:cacheprovider -q $(QUICK_TESTS) || exit 1; \
	done

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist
