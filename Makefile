# make demo       install, then run the quickstart: eight devices learn together over a radio
# make test       the whole test suite
# make check      formatter, linter, types, import contracts, Dockerfile
# make reproduce  both papers' comparisons on digits, a page of each in runs/: minutes on two cores
# make bench      wall-clock benchmarks, each a ratio against a limit measured in the same run

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --constraint constraints.txt

.PHONY: demo test check reproduce bench clean

demo: $(VENV)/node.installed
	$(BIN)/hearsay run experiments/quickstart.toml

test: $(VENV)/dev.installed
	$(BIN)/pytest

check: $(VENV)/dev.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile

reproduce: $(VENV)/node.installed
	$(BIN)/hearsay reproduce p1 --quick
	$(BIN)/hearsay reproduce p2 --quick

bench: $(VENV)/dev.installed
	$(BIN)/python -m benchmarks.channel
	$(BIN)/python -m benchmarks.rounds
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.arq
	$(BIN)/python -m benchmarks.analog
	$(BIN)/python -m benchmarks.consensus
	$(BIN)/python -m benchmarks.averaging
	$(BIN)/python -m benchmarks.planning

$(VENV)/bin/pip:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Hearsay needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/node.installed: $(VENV)/bin/pip pyproject.toml constraints.txt
	$(PIP) --editable '.[node]'
	touch $@

$(VENV)/dev.installed: $(VENV)/bin/pip pyproject.toml constraints.txt
	$(PIP) --editable '.[node,dev]'
	touch $@ $(VENV)/node.installed

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
