# Penstock. `make demo` and `make test` do all the set-up they need in a virtual environment of this checkout.
.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench lock clean

VENV := .venv
BIN := $(VENV)/bin
BASE := $(shell command -v python3.11 || command -v python3)
READY := $(VENV)/.ready
CORES := $(shell nproc 2>/dev/null || echo 2)

help: ## list these commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(READY) ## take a real model from a commit to production, see a gate stop a bad one, roll back
	@$(BIN)/penstock demo

test: $(READY) lint ## check style, types and floors, then run all tests
	@tests/system-parts.sh
	@$(BIN)/python -m pytest -n $(CORES) --dist loadgroup

lint: $(READY) ## style, types, import floors
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache | tail -n 3

format: $(READY) ## put the code in shape
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY) ## measure what takes minutes; docs/benchmarks.md has the figures and the longer ones
	@$(BIN)/python benchmarks/startup.py
	@$(BIN)/python benchmarks/switch_under_load.py
	@$(BIN)/python benchmarks/planning.py
	@$(BIN)/python benchmarks/steps.py --peers ninja,make,doit --rounds 3
	@$(BIN)/python benchmarks/steps.py --peers ninja,make,doit --rounds 3 --chain 150
	@$(BIN)/python benchmarks/nothing_to_do.py --peers ninja,make,doit --rounds 3
	@$(BIN)/python benchmarks/logs.py --rounds 3
	@$(BIN)/python benchmarks/commit_to_process.py
	@$(BIN)/python benchmarks/gates.py reuse --runs 100
	@$(BIN)/python benchmarks/gates.py flips --runs 1000
	@$(BIN)/python benchmarks/evidence.py --rounds 1

lock: $(READY) ## resolve requirements-dev.lock anew (with hashes, without index addresses)
	@$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --quiet \
		--no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
		--upgrade --output-file requirements-dev.lock

clean: ## remove what set-up and tests made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* htmlcov

# The environment: made once, made anew when the lock changes; --require-hashes refuses anything that is not pinned, and
# --no-deps looks for nothing else: the lock is whole (pip 23 asks the index for newer `coverage[toml]` otherwise).
$(READY): requirements-dev.lock pyproject.toml
	@$(BASE) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Penstock needs Python 3.11 or newer, and $(BASE) is older: install python3.11"; exit 2; }
	@test -x $(BIN)/python || $(BASE) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "python3 -m venv failed: apt-get install python3-venv, then again"; exit 2; }
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)
