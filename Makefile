# `make demo` and `make test` need only Python 3.11 to 3.14 and make: they set up .venv themselves, from locks/, which name
# every package with version and hash and no address: pip takes them from wherever it is told to.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where uv is installed, `make test PIP="uv pip"` sets up in a fraction of the time; uv does not read pip's settings.
PIP ?= $(BIN)/python -m pip
LOCKED = $(PIP) install --quiet --require-hashes --no-build-isolation --requirement
# A process of the tests for each core and one thread in each: threads that wait for one another on a busy machine cost
# ten times what they save. A process that has no more tests takes some of another's.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal
OUT ?= runs/demo

.PHONY: demo test test-slow test-all lint type bench canary lock reference docs clean

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
	$(BIN)/mypy benchmarks

bench: $(VENV)/.bench
	for script in benchmarks/frontends.py benchmarks/mel160.py; do $(BIN)/python $$script || exit 1; done

# The newest that the version ranges allow, without the locks, in an environment of its own: one line at the end.
canary:
	$(PYTHON) tools/canary.py

# The locks anew, with the newest releases; `make lock UPGRADE=` changes only what pyproject.toml asks for.
UPGRADE ?= --upgrade
COMPILE = build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate --no-emit-index-url --no-emit-find-links $(UPGRADE)
lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet uv
	$(COMPILE) locks/build.in --output-file locks/build.txt
	$(COMPILE) pyproject.toml --extra dev --constraint locks/build.txt --output-file locks/dev.txt
	$(COMPILE) pyproject.toml --extra demo --constraint locks/dev.txt --output-file locks/demo.txt
	$(COMPILE) pyproject.toml --extra bench --constraint locks/dev.txt --output-file locks/bench.txt

# docs/commands.md, docs/settings.md and the picture of the architecture, from the code.
reference: $(VENV)/.dev
	$(BIN)/python docs/manual.py
	$(BIN)/python tools/architecture.py

# The site: open site/index.html.
docs: reference
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html -d build/doctrees docs site

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml locks/demo.txt $(VENV)/.build
	@echo "installing repbench and torch (some 5.3 GB, a minute or two)"
	$(LOCKED) locks/demo.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: pyproject.toml locks/dev.txt $(VENV)/.build
	@echo "installing repbench, torch (some 5.3 GB, a minute or two) and the tools"
	$(LOCKED) locks/dev.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	touch $@ $(VENV)/.demo

$(VENV)/.bench: locks/bench.txt $(VENV)/.dev
	$(LOCKED) locks/bench.txt
	touch $@

# What packages without wheels are built with, repbench among them: from the lock too, and so not isolated.
$(VENV)/.build: locks/build.txt | $(BIN)/python
	$(LOCKED) locks/build.txt
	touch $@

clean:
	rm -rf $(VENV) build dist site src/*.egg-info .mypy_cache .ruff_cache .pytest_cache

# Mutated inputs to every reader, always the same ones; minutes. `python -m tests.fuzz --help` says more.
.PHONY: fuzz
fuzz: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz

.PHONY: mutants
# Small faults in the numerics that no test notices: a table, half an hour (docs/design/0014-mutants.md).
mutants: $(VENV)/.dev
	$(BIN)/python benchmarks/mutants/run.py
