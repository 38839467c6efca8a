# One word for each task; virtual environments are made on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := python -m pip install --quiet --disable-pip-version-check

# What `make test-pythons` looks for, besides PYTHON.
OTHERS ?= python3.12 python3.13 python3.14

.PHONY: help demo test servers chaos fuzz mutants test-lowest test-pythons check format bench bench-quick clean

help:
	@echo "make demo          run the main job on the embedded emulator"
	@echo "make test          run the test suite"
	@echo "make servers       install the third-party servers that some of them run against"
	@echo "make chaos         play 10 000 schedules of calls and faults"
	@echo "make fuzz          search for inputs that break a parser or the rule"
	@echo "make mutants       change the rule, one thing at a time: do the tests notice?"
	@echo "make check         format, lint and types"
	@echo "make bench         measure speed and memory, beside other libraries (15 minutes)"
	@echo "make bench-quick   the same in five minutes, with more noise"
	@echo "make format        mend what can be mended by itself"
	@echo "make test-lowest   run the tests on the lowest declared versions"
	@echo "make test-pythons  run the tests on the other Pythons that are here"

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP) --editable '.[dev]'
	@touch $@

demo: $(VENV)/.ready
	$(BIN)/python examples/privacy.py

# One worker more than there are cores, as a third of the time is waiting; asyncio's debug mode, and
# Python's, but for the checks of its memory: nothing here is written in C.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')
test: $(VENV)/.ready
	PYTHONDEVMODE=1 PYTHONMALLOC=pymalloc $(BIN)/python -m pytest --numprocesses $(WORKERS)

# What tests/test_third_party.py and test_redis.py run against; nginx and Redis come from the
# system.
servers: build/servers/.node build/servers/.python build/servers/.engines
	@command -v nginx >/dev/null || echo "nginx is not here: apt-get install nginx-light"
	@command -v redis-server >/dev/null || echo "Redis is not here: apt-get install redis-server"

build/servers/.node: tests/servers/package.json tests/servers/package-lock.json
	mkdir -p build/servers
	cp $^ build/servers/
	npm ci --prefix build/servers --no-audit --no-fund --loglevel=error
	@touch $@

build/servers/.python: tests/servers/requirements.txt
	$(PYTHON) -m venv build/servers/venv
	build/servers/venv/bin/$(PIP) --requirement $<
	@touch $@

build/servers/.engines: tests/servers/engines.txt build/servers/.python
	build/servers/venv/bin/$(PIP) --no-deps --upgrade --target build/servers/engines --requirement $<
	@touch $@

# `SCHEDULES=500 make chaos` for fewer; what fails names the seed that repeats it.
SCHEDULES ?= 10000
chaos: $(VENV)/.ready
	$(BIN)/python -m tests.chaos --schedules $(SCHEDULES) --processes 2

build/fuzz/.ready: pyproject.toml
	$(PYTHON) -m venv build/fuzz
	build/fuzz/bin/$(PIP) --editable '.[dev]' atheris==3.0.0
	@touch $@

# `FUZZ_SECONDS=600 make fuzz` for longer; the corpus grows in build/fuzz from run to run.
FUZZ_SECONDS ?= 60
fuzz: build/fuzz/.ready
	build/fuzz/bin/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

build/mutants/.ready: pyproject.toml
	$(PYTHON) -m venv build/mutants
	build/mutants/bin/$(PIP) --editable '.[dev]' mutmut==3.8.1
	@touch $@

# `make mutants MODULES="clock headers"` for some of them.
MODULES ?=
mutants: build/mutants/.ready
	nice build/mutants/bin/python -m tests.mutation $(MODULES)

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

build/bench/.ready: pyproject.toml benchmarks/requirements.txt
	$(PYTHON) -m venv build/bench
	build/bench/bin/$(PIP) --editable '.[redis]' --requirement benchmarks/requirements.txt
	@touch $@

# Two quiet cores: the client is pinned to the first, its server to the last.
bench: build/bench/.ready
	build/bench/bin/python -m benchmarks

bench-quick: build/bench/.ready
	build/bench/bin/python -m benchmarks --quick

build/lowest/.ready: pyproject.toml
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/$(PIP) --editable '.[dev]' aiohttp==3.14.0 oauthlib==3.2.0 tenacity==9.1.2 \
	  redis==5.0.1
	@touch $@

# What is random or long, and says nothing of versions: `make test` has it.
LONG := any_api architecture auth_fuzz cancel_everywhere cancellation chaos fleet fuzz invariants \
  leaks ledger_machine ledger_script options_page outages processes sabotage scenarios_page \
  scenarios_runs security_servers third_party whole_stack
BUT_LONG := $(LONG:%=--ignore=tests/test_%.py)
# What uses none of the packages whose versions are declared, nor what is made with them.
PURE := clock costs dialects dropped foreseen heaps leases ledger_rule ledger_sqlite ledgers limiter \
  local matching quota refills routes sabotage_ledger settling speed values windows
BUT_PURE := $(PURE:%=--ignore=tests/test_%.py)

# Without the debug mode, in which aiohttp 3.14.0's own server warns.
test-lowest: build/lowest/.ready
	build/lowest/bin/python -m pytest --numprocesses auto -p no:cacheprovider -q $(BUT_LONG) $(BUT_PURE)

# A Python that is not installed, or has no working venv, is named and passed over. `make test` has
# the debug mode, which takes a fifth more.
test-pythons:
	@for python in $(OTHERS); do \
	  if ! $$python -c 'import venv' 2>/dev/null; then echo "$$python: not here"; continue; fi; \
	  $$python -m venv build/$$python && \
	  build/$$python/bin/$(PIP) --editable '.[dev]' && \
	  build/$$python/bin/python -m pytest --numprocesses auto -p no:cacheprovider -q $(BUT_LONG) \
	    --ignore=tests/test_redis.py || exit 1; \
	done

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist
