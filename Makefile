# `make demo` and `make test` need only Python 3.11 to 3.13 and make: they set up .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A process of the tests for each core and one thread in each: threads that wait for one another on a busy machine cost
# ten times what they save.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8
OUT ?= runs/demo

.PHONY: demo test test-slow test-all lint type bench reference docs clean

demo: $(VENV)/.demo
	$(BIN)/repbench demo --out $(OUT)

test: $(VENV)/.dev
	$(PYTEST)

test-slow: $(VENV)/.dev
	$(PYTEST) -m slow

test-all: $(VENV)/.dev
	$(PYTEST) -m "slow or not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.bench
	for script in benchmarks/frontends.py benchmarks/mel160.py; do $(BIN)/python $$script || exit 1; done

# docs/commands.md and docs/settings.md, from the code.
reference: $(VENV)/.dev
	$(BIN)/python docs/manual.py

# The site: open site/index.html.
docs: reference
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html -d build/doctrees docs site

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "installing repbench and torch (some 4.6 GB, a minute or two)"
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing repbench, torch (some 4.6 GB, a minute or two) and the tools"
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.demo

$(VENV)/.bench: pyproject.toml $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@

clean:
	rm -rf $(VENV) build dist site src/*.egg-info .mypy_cache .ruff_cache .pytest_cache

.PHONY: mutants
# Do the tests notice small faults in the numerics? A table, half an hour: docs/design/0014-mutants.md.
mutants: $(VENV)/.dev
	$(BIN)/python benchmarks/mutants/run.py
