# Two commands do all: `make study` and `make test`. Each sets up .venv first, once.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PORT ?= 5000
HOST ?= 127.0.0.1
# Test files that run at once: make test JOBS=8
JOBS ?= 2

# The tests start hundreds of Python processes, which would each compile the project again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup study ui test test-unit test-slow test-faults test-cluster test-long test-lowest check docs notebooks audit format clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

# Made again when what is to be installed changes, and not otherwise.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "Python 3.11 or newer is needed, found %d.%d; name one: make PYTHON=/path/to/python3.11" % v[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/python -c 'import analysis.report.writing, study.running.on_ray, study.running.session, study.tracking.tracker, trainables.tune.trainable' # compiles what the commands import, a fifth of what is installed
	@touch $@

setup: $(READY) ## virtual environment with everything pinned

study: $(READY) ## the default study: adapter width on digits, about a minute
	$(BIN)/python -m study.launch --space adapter_width

ui: $(READY) ## MLflow UI on loopback (HOST=, PORT=)
	@case "$(HOST)" in 127.*|localhost|::1) ;; *) echo "warning: whoever reaches $(HOST):$(PORT) can read, change and delete these studies; 127.0.0.1 lets in this machine alone" >&2 ;; esac
	$(BIN)/mlflow ui --backend-store-uri sqlite:///study_results/mlflow.db --host $(HOST) --port $(PORT)

test: $(READY) ## the tests, slow ones left out
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-unit: $(READY) ## the tests that start no process, in about a minute
	$(BIN)/python -m pytest -m unit -n $(JOBS) --dist loadfile

test-slow: $(READY) ## the slow tests alone
	$(BIN)/python -m pytest -m slow -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-faults: $(READY) ## the tests in which something breaks for real
	$(BIN)/python -m pytest -m fault -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-cluster: $(READY) ## the tests on simulated machines: Linux, root, about ten minutes
	$(BIN)/python -m pytest -m cluster tests/cluster

test-long: $(READY) ## the tests of both, which take half an hour
	$(BIN)/python -m pytest -m "slow or fault" -n $(JOBS) --dist loadfile --no-loadscope-reorder

# A release step, in an environment of its own (about 7 GB). uv finds the lowest versions that fit; pip cannot.
test-lowest: LOWEST := $(VENV)-lowest
test-lowest: ## a smoke study and the tests with the lowest versions that pyproject.toml allows
	test -x $(LOWEST)/bin/uv || ($(PYTHON) -m venv $(LOWEST) && $(LOWEST)/bin/python -m pip install --quiet uv)
	$(LOWEST)/bin/uv pip compile --quiet --extra dev --resolution lowest-direct --python $(LOWEST)/bin/python --output-file $(LOWEST)/lowest.txt pyproject.toml
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --requirement $(LOWEST)/lowest.txt
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --no-deps --editable .
	$(LOWEST)/bin/python -m study.launch --space adapter_width --smoke --output-dir $(LOWEST)/studies
	$(LOWEST)/bin/python -m pytest -n $(JOBS) --dist loadfile

check: $(READY) docs ## format, lint, types, import contracts, documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Fails on every warning: broken internal links, unknown references, pages outside the table of contents.
docs: $(READY) ## the documentation, offline, in build/docs/index.html
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet --builder html docs build/docs

# Tests fail if the outputs are not those of the scripts.
notebooks: $(READY) ## run analysis/notebooks/*.py and write the .ipynb files with outputs
	$(BIN)/python docs/run_notebooks.py

# In an environment of its own: what it needs is no part of ours.
audit: ## known vulnerabilities of the pinned dependencies (asks the network)
	test -x $(VENV)-audit/bin/pip-audit || ($(PYTHON) -m venv $(VENV)-audit && $(VENV)-audit/bin/python -m pip install --quiet 'pip-audit>=2.7')
	$(VENV)-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

format: $(READY) ## format and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the environment and caches; studies stay
	rm -rf $(VENV) $(VENV)-audit $(VENV)-lowest build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
