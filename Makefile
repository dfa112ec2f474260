# One verb per task; CI calls the same. `make setup` is safe to repeat and takes about a second when nothing changed.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
EXTRA ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# pyright and its node come from the lock: nothing is fetched when it runs.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# The tests of a project of many small tensors gain nothing from more threads than cores.
export OMP_NUM_THREADS ?= 2
# What is imported is compiled once and kept, whatever the shell says: else each of the hundred processes of a test run compiles torch anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test unit integration check bench faults up down lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## .venv from the hashed lock, with .venv/bin/ratchet (EXTRA=cpu|gpu; gpu where nvidia-smi answers)
	@PYTHON='$(PYTHON)' EXTRA='$(EXTRA)' tools/setup.sh

demo: setup  ## the whole loop, live, on real Kafka, Redis, Ray and vLLM (ARGS='--rollback', '--routing', '--useless', '--chaos' or '--keep')
	@$(BIN)/ratchet demo $(ARGS)

check: setup  ## format, lint, types, layers, schemas: no server, no test; all of them, then the verdict
	@bad=; \
	for tool in 'ruff format --check --quiet .' 'ruff check --quiet .' pyright lint-imports 'python -m tools.schema check'; do \
	  echo "check: $$tool"; $(BIN)/$$tool || bad="$$bad [$$tool]"; \
	done; \
	if [[ -n $$bad ]]; then echo "check: refused by$$bad"; exit 1; fi

unit: setup  ## the fast tests, no server
	$(PYTEST) tests/unit -n 2 -q --timeout 60

integration: setup  ## the tests on real servers; a skip is a failure
	$(PYTEST) tests/integration -q --no-skips

test: check unit integration  ## everything that must hold before a change lands

bench: setup  ## the benchmarks that say what we promise (NAME=one: judge, trust, loop, streams, evidence, conformance, pii; ARGS)
	@bad=; \
	for name in $(or $(NAME),judge trust loop); do $(BIN)/ratchet bench $$name $(ARGS) || bad="$$bad $$name"; done; \
	if [[ -n $$bad ]]; then echo "bench: not held or not run:$$bad"; exit 1; fi

faults: setup  ## break everything that can be broken; the table of what was lost, duplicated or wrong (ARGS='--kills 200')
	@$(BIN)/python -m tests.faults $(ARGS)

up: setup  ## the local stack and the agents
	@$(BIN)/ratchet up $(ARGS)

down: setup  ## stop exactly what `up` started
	@$(BIN)/ratchet down $(ARGS)

LOCK_WITH = build/uv/bin/uv pip compile pyproject.toml --extra redis --extra dev --generate-hashes --no-emit-index-url \
	--python-version 3.11 --quiet
lock: setup  ## resolve the lock files again (as few changes as possible; UPGRADE=--upgrade for all)
	$(LOCK_WITH) $(UPGRADE) --extra cpu --override requirements/overrides.txt -o requirements/cpu.lock
	$(LOCK_WITH) $(UPGRADE) --extra gpu --override requirements/overrides-gpu.txt -o requirements/gpu.lock

clean:  ## remove what make made: .venv, build, caches (never .ratchet: that is the stack's state)
	rm -rf .venv build .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
