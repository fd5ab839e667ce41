# Everything that this project does by itself. Needs Python 3.11 or newer, its pip, and make; the rest goes into .venv.
# `make PYTHON=/path/to/python3.12 test` chooses the interpreter that .venv is made with; `make clean` forgets it all.

SHELL = /bin/sh
MAKEFLAGS += --no-print-directory

# The newest that runs: a name on the PATH may be a shim for an interpreter that is not selected.
CANDIDATES = python3.14 python3.13 python3.12 python3.11 python3 python
FIT = import importlib.util as i, sys, venv; \
    sys.exit(sys.version_info < (3, 11) or not (i.find_spec("ensurepip") or i.find_spec("pip")))
PYTHON = $(shell for name in $(CANDIDATES); do \
    if $$name -c '$(FIT)' >/dev/null 2>&1; then echo $$name; break; fi; done)

.PHONY: help demo test test-all test-wheel lint format bench bench-compare clean

help:
	@echo 'make demo        a PostgreSQL application, profiled: starts its own server and leaves none behind'
	@echo 'make test        lint, the test suite without what takes seconds, a slice of it on other CPythons and SQLAlchemys'
	@echo 'make test-all    the test suite on every CPython here and every supported SQLAlchemy; writes docs/test-matrix.md'
	@echo 'make test-wheel  the test suite, with what takes seconds, against the built and installed wheel'
	@echo 'make lint        ruff, mypy, pyright'
	@echo 'make format      what lint wants of layout and imports'
	@echo 'make bench       every benchmark; bench-compare: those beside other tools alone; writes bench/RESULTS.md'
	@echo 'make clean       remove what all of these made'

demo: .venv/demo
	@.venv/bin/sqlprobe demo

test: lint
	@.venv/bin/python tools/matrix.py slice

test-all: lint
	@.venv/bin/python tools/matrix.py all

test-wheel: .venv/dev
	@.venv/bin/python tools/matrix.py wheel

lint: .venv/dev
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@# Side by side. pyright asks the python that it finds on the PATH where packages are.
	@.venv/bin/mypy & mypy=$$!; PATH="$(CURDIR)/.venv/bin:$$PATH" pyright; pyright=$$?; \
	    wait $$mypy && exit $$pyright

format: .venv/dev
	@.venv/bin/ruff check --fix-only --quiet
	@.venv/bin/ruff format

# Long, and best on a machine with nothing else to do; each part is a program of its own that can be called alone.
bench: bench-compare
	@.venv/bin/python bench/ratios.py
	@.venv/bin/python bench/overhead.py
	@.venv/bin/python bench/exporters.py
	@.venv/bin/python bench/scrape.py
	@.venv/bin/python bench/memory.py
	@.venv/bin/python bench/memory.py --literals
	@.venv/bin/python bench/imports.py
	@.venv/bin/python bench/pytest_plugin.py

bench-compare: .venv/dev
	@.venv/bin/python bench/compare.py

clean:
	rm -rf .venv .matrix build dist .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

define ENVIRONMENT
@test -n "$(PYTHON)" || { echo 'sqlprobe needs Python 3.11 or newer, with pip; name one: make PYTHON=...' >&2; exit 1; }
@echo 'installing into .venv'
@$(PYTHON) tools/environment.py .venv
endef

.venv/demo: pyproject.toml tools/environment.py
	$(ENVIRONMENT) -e '.[demo]'
	@touch $@

.venv/dev: pyproject.toml tools/environment.py
	$(ENVIRONMENT) -e '.[dev]'
	@touch $@ .venv/demo
