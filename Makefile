# Everything a newcomer needs: `make run` and `make test`. Both set themselves up in .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# One worker more than cores, because many tests wait; no more than five: the terminal tests start processes of their own.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -gt 4 ] && n=4; echo $$((n + 1)))

# How long `make soak` goes on.
SOAK_S ?= 300

.DEFAULT_GOAL := help
.PHONY: help run test demo lint format snapshots pictures soak bench bench-compare bench-peers bench-pull clean

help: ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "modelhub-tui needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Setting up $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@$(BIN)/python -m compileall -q src
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed constraints-test.txt
	@echo "Setting up the tests ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r constraints-test.txt
	@touch $@

run: $(VENV)/.installed ## open the dashboard
	@$(BIN)/modelhub

test: $(VENV)/.installed-dev ## run every check and test
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache > .venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }
# What fails once on a busy machine (processes, terminals, clocks) is tried again; the report counts the reruns.
	@$(PYTEST) -n $(WORKERS) --dist loadgroup --reruns 2 $(ARGS)

demo: $(VENV)/.installed-dev ## try everything offline, against a hub on this machine
	@$(BIN)/python -m tests.hub.demo $(ARGS)

lint: $(VENV)/.installed-dev ## the checks of `make test`, without the tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(VENV)/.installed-dev ## format the code
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format .

snapshots: $(VENV)/.installed-dev ## draw the pictures that the tests compare with anew (look at the report first)
	@$(PYTEST) -n $(WORKERS) tests/tui -m snapshot --snapshot-update

pictures: $(VENV)/.installed-dev ## draw the README's pictures anew, from the demo
	@$(BIN)/python -m tests.hub.pictures

soak: $(VENV)/.installed-dev ## pull, break, kill and verify for SOAK_S seconds (make soak SOAK_S=1800)
	@$(BIN)/python -m tests.faults.soak --seconds $(SOAK_S) $(ARGS)

bench: $(VENV)/.installed-dev ## measure every budget of docs/performance.md
	@$(BIN)/python -m benchmarks $(ARGS)

bench-compare: $(VENV)/.installed-dev ## measure again, and say what is worse than in benchmarks/baseline.json
	@$(BIN)/python -m benchmarks --compare $(ARGS)

bench-peers: $(VENV)/.installed-dev ## measure other terminal programs for models beside ours (needs a network)
	@$(BIN)/python -m benchmarks.peers $(ARGS)

bench-pull: $(VENV)/.installed-dev ## measure how fast a model arrives, beside curl, aria2c and hf (needs nginx and aria2c)
	@$(BIN)/python -m benchmarks.pull $(ARGS)

clean: ## remove the virtual environment and caches
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .demo
