# Everything runs in .venv, which `make install` makes from constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
# Tests run side by side, a whole file to a worker. Each takes about a core and 2 GB.
JOBS ?= 2
# Which part of the thorough tests `make test-all` takes: 2/3 is the second third of their files.
THOROUGH ?= 1/1
# So often `make crash-test` kills something.
KILLS ?= 6
PYTEST := $(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: install demo demo-bad test test-all crash-test lint format clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[ops,charts]'
	touch $@

$(DEV): $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[ops,charts,fleet,kubernetes,ray,dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/vlm-ops run demo --promote

demo-bad: $(STAMP)
	$(BIN)/vlm-ops run demo-shuffled --promote

test: $(DEV)
	$(PYTEST) -m 'not thorough'

test-all: $(DEV)
	$(PYTEST) --thorough $(THOROUGH)

crash-test: $(DEV)
	PYTHONPATH=tests/material $(BIN)/python benchmarks/crash.py --kills $(KILLS)

lint: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/house.py

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) runs build *.egg-info .mypy_cache .ruff_cache .pytest_cache
