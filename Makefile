# chatter-db. `make` prints this help.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# Containers often set it: every process would compile all of its modules anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run serve test test-long chaos outage fuzz lint format bench compare lock clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | \
	  awk -F'|' '{ printf "  make %-14s %s\n", $$1, $$2 }'

run: $(READY) ## See it work: a LangGraph chat and a real usage trace, then the live dashboard
	@$(BIN)/chatter demo
	@if [ -t 0 ] && [ -t 1 ]; then $(BIN)/chatter serve --open; fi

serve: $(READY) ## The dashboard, the chat API and the event stream on 127.0.0.1:8000
	@$(BIN)/chatter serve

test: $(READY) ## Run the tests but for the long ones; POSTGRES="16 /opt/pg17/bin" adds servers to the embedded one
	@CHATTER_TEST_POSTGRES="$(POSTGRES)" $(BIN)/pytest -n 2 -m "not long" $(ARGS)

test-long: $(READY) ## Run these: browsers, faults, upgrades from every version
	@CHATTER_TEST_POSTGRES="$(POSTGRES)" $(BIN)/pytest -n 2 -m long $(ARGS)

chaos: $(READY) ## 200 faults on the whole path under load (ARGS="--faults 40 --seed 7 --postgres 15")
	@$(BIN)/python -m tests.chaos.campaign $(ARGS)

outage: $(READY) ## Postgres away for a minute in the middle of 1,000 runs, the app killed meanwhile
	@$(BIN)/python -m tests.chaos.outage $(ARGS)

fuzz: $(READY) ## Bad input on every way in, at random (ARGS="--inputs 20000 --seed 7 --only http")
	@$(BIN)/python -m tests.fuzz.campaign $(ARGS)

lint: $(READY) ## Linters, types, import contract
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/sqlfluff lint --disable-progress-bar sql

format: $(READY) ## Format the Python code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(READY) ## Measure: ratios against the bare table, in one run
	@$(BIN)/python tests/benchmarks/bench_writes.py
	@$(BIN)/python tests/benchmarks/bench_import.py
	@$(BIN)/python tests/benchmarks/bench_events.py
	@$(BIN)/python tests/benchmarks/bench_analytics.py
	@$(BIN)/python tests/benchmarks/bench_recording.py
	@$(BIN)/python tests/benchmarks/bench_isolation.py
	@$(BIN)/python tests/benchmarks/bench_chat.py

compare: $(READY) ## The same calls into what else keeps them, in one run; ARGS=--json (half an hour)
	@$(BIN)/python -m tests.compare $(ARGS)

lock: ## Renew the hashed lock from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --upgrade -q \
	  --extra server --extra embedded --group dev -o .ci/requirements.lock

clean: ## Remove what this file made (not the embedded server's data)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist

# The lock names every package with its hash, so nothing is left to resolve: older pips look
# beyond the pinned versions where a package is asked for with an extra. Our own comes last.
$(READY): .ci/requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "chatter-db needs Python 3.11 or newer; set PYTHON=... (this is " + sys.version.split()[0] + ")")'
	@echo "Setting up $(VENV) (once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r .ci/requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@
