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

run: setup ## train the embedded default with ROSA on CoLA; takes minutes on two CPU cores
	@$(RUN) method=rosa task=cola

test: setup ## run the test suite offline, without the slow tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 -m 'not slow'

test-slow: setup ## run the tests that take minutes each
	@$(BIN)/python -m pytest -q -m 'slow and not slurm'

test-slurm: setup ## run the suite tests on the Slurm cluster whose sbatch is on the PATH (docs/howto/suites.md)
	@scripts/test_slurm.sh $(BIN)/python

test-oldest: ## run the tests with the oldest versions that pyproject.toml allows, in a separate environment
	@PYTHON=$(PYTHON) scripts/versions.sh oldest

test-newest: ## run the tests with the newest versions on the package index, in a separate environment
	@PYTHON=$(PYTHON) scripts/versions.sh newest

golden: setup ## compare results on small cells with the previous commit, byte for byte (COMMIT=REV: another commit)
	@$(BIN)/python scripts/golden.py $(if $(COMMIT),--commit $(COMMIT))

lint: setup ## run ruff and mypy, and check the import layers and the documentation's links
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
	@$(MKDOCS) build --strict --quiet --site-dir $(VENV)/site

reference: setup ## regenerate the tables in docs/reference/
	@$(BIN)/python scripts/reference.py

docs: setup ## build the documentation into site/; open site/index.html
	@$(MKDOCS) build --strict --quiet

format: setup ## fix and format the code with ruff
	@$(BIN)/ruff check --fix-only . && $(BIN)/ruff format .

tables: setup ## write results/tables/ from all records
	@$(BIN)/python -m rosa_bench.tables

claims: setup ## judge the papers' claims by the committed records and by results/runs
	@$(BIN)/python -m rosa_bench.tables.claims

bench: setup ## measure time and memory against peers in nine parts; over an hour (one part: scripts/benchmark.py --part NAME)
	@$(BIN)/python scripts/benchmark.py

bench-gpu: setup ## measure time, memory and exactness on a GPU in under eight minutes; continues where it stopped
	@$(BIN)/python scripts/bench_gpu.py

lock: setup ## update requirements.lock within the ranges of pyproject.toml
	@scripts/lock.sh

clean: ## remove .venv and caches, but keep results
	rm -rf $(VENV) .venv-oldest .venv-newest .pytest_cache .mypy_cache .ruff_cache site
