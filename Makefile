# Two commands: `make demo` trains a small Grok and lets it answer; `make test` runs the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: help install demo demo-clean test test-long test-all check bench format clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED) ## only install everything, into .venv
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; try make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install ## train a small Grok on two workers, test it, let it answer; later calls do not retrain
	@$(BIN)/python examples/demo.py

demo-clean: ## forget the demo's run, so that the next one trains again
	rm -rf runs/laptop

test: install ## the tests
	@$(BIN)/python -m pytest

test-long: install ## the tests that take minutes: a hundred random faults
	@$(BIN)/python -m pytest -m long

test-all: install ## every test, those of all combinations of layouts too
	@$(BIN)/python -m pytest -m "" --hypothesis-profile=default

check: install ## formatting, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: install ## ratios to peers and to the machine's limits
	@$(BIN)/python benchmarks/train.py
	@$(BIN)/python benchmarks/recovery.py
	@$(BIN)/python benchmarks/snapshot.py
	@$(BIN)/python benchmarks/controller.py
	@$(BIN)/python benchmarks/memory.py
	@$(BIN)/python benchmarks/plan.py
	@$(BIN)/python benchmarks/network.py
	@$(BIN)/python benchmarks/simulate.py
	@$(BIN)/python benchmarks/design.py
	@$(BIN)/python benchmarks/export.py
	@$(BIN)/python benchmarks/serve.py

format: install ## let ruff format everything
	@$(BIN)/ruff check --fix-only --quiet . ; $(BIN)/ruff format .

clean: ## remove the environment and all runs
	rm -rf $(VENV) runs
