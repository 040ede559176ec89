PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN = $(BIN)/python -m rosa_bench
MKDOCS = NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

.PHONY: help setup run test test-slow test-slurm test-oldest test-newest golden lint format reference docs tables claims bench bench-gpu lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## create .venv with the locked dependencies and this package in editable mode

$(STAMP): pyproject.toml requirements.lock
	@echo "Installing into $(VENV); the first time takes a few minutes."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev,nlg,optuna,peft,plot]'
	@touch $@

run: setup ## the main job on the embedded default: ROSA on CoLA, minutes on two CPU cores
	@$(RUN) method=rosa task=cola

test: setup ## the whole test suite, offline
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 -m 'not slow'

test-slow: setup ## the tests that take minutes each
	@$(BIN)/python -m pytest -q -m 'slow and not slurm'

test-slurm: setup ## the tests of suites on a real Slurm, the one whose sbatch is on the PATH (docs/howto/suites.md)
	@scripts/test_slurm.sh $(BIN)/python

test-oldest: ## the test suite with the oldest versions that pyproject.toml allows, in an environment of its own
	@PYTHON=$(PYTHON) scripts/versions.sh oldest

test-newest: ## the test suite with the newest versions that the index has, in an environment of its own
	@PYTHON=$(PYTHON) scripts/versions.sh newest

golden: setup ## compare results with the previous commit on small cells, byte for byte (COMMIT=REV: with another one)
	@$(BIN)/python scripts/golden.py $(if $(COMMIT),--commit $(COMMIT))

lint: setup ## ruff, mypy, the layers of the rooms, and the links of the documentation
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
	@$(MKDOCS) build --strict --quiet --site-dir $(VENV)/site

reference: setup ## renew the generated tables of docs/reference/
	@$(BIN)/python scripts/reference.py

docs: setup ## build the documentation into site/; open site/index.html
	@$(MKDOCS) build --strict --quiet

format: setup ## rewrite the code in the house format
	@$(BIN)/ruff check --fix-only . && $(BIN)/ruff format .

tables: setup ## results/tables/ from all records
	@$(BIN)/python -m rosa_bench.tables

claims: setup ## judge the papers' claims by the committed records and by results/runs
	@$(BIN)/python -m rosa_bench.tables.claims

bench: setup ## time and memory against peers, nine parts (more than an hour; --part NAME of scripts/benchmark.py for one)
	@$(BIN)/python scripts/benchmark.py

bench-gpu: setup ## time, memory and exactness on a GPU, under eight minutes; continues where it was stopped
	@$(BIN)/python scripts/bench_gpu.py

lock: setup ## renew requirements.lock within the ranges of pyproject.toml
	@scripts/lock.sh

clean: ## remove .venv and caches; results stay
	rm -rf $(VENV) .venv-oldest .venv-newest .pytest_cache .mypy_cache .ruff_cache site
