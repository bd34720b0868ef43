# `make demo` and `make test` need Python >= 3.11 with venv, make, git and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# legal, medical or support
DEMO ?= legal

.PHONY: demo test check format bench

demo: $(READY)
	$(BIN)/tunery run configs/demo-$(DEMO).yaml

test: $(READY)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks.demo $(DEMO)
	$(BIN)/python -m benchmarks.train_cpu
	$(BIN)/python -m benchmarks.merge
	$(BIN)/python -m benchmarks.serve

# The pin of torch in constraints.txt is the CPU build's version on a machine without CUDA wheels and
# the CUDA build's elsewhere; pip takes what the index offers.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Tunery needs Python 3.11 or newer, this is %d.%d: set PYTHON=..." % sys.version_info[:2])'
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: on Debian and Ubuntu install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@
