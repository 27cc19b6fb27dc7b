# Two commands do everything, set-up included: `make demo` and `make test`.

# The first interpreter that really starts and is new enough (a version manager may list some that do not).
PYTHON ?= $(shell for name in python3 python3.11 python3.12 python3.13; do $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$name; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
ROUTE ?= rlhf
# Tests run side by side; two workers take about 4 GB. WORKERS=0 runs them in one process, for a debugger.
WORKERS ?= 2

.PHONY: demo test slow check bench-quick site clean

demo: $(VENV)/.ready
	$(BIN)/accord demo $(ROUTE)

test: $(VENV)/.ready-test
	$(BIN)/python -m pytest -q -m "not slow" -n $(WORKERS) --dist worksteal

slow: $(VENV)/.ready-test
	$(BIN)/python -m pytest -q -m slow

check: $(VENV)/.ready-test
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/pyright

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "accord needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11"; exit 4; }
	$(PYTHON) -m venv $(VENV)

# torch first, at the version that was tested. Which build that is (for the CPU, or with gigabytes of GPU libraries) the package index decides.
$(VENV)/.ready: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[annotate]'
	@touch $@

# Ratios of the fast paths to the plain ones, in one run; part of every change to the engine.
bench-quick: $(VENV)/.ready
	$(BIN)/python benchmarks/quick.py

# The pages as a site in site/, for any web server. Links that lead nowhere end it.
site: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[site]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "site/index.html"

$(VENV)/.ready-test: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) site .pytest_cache .ruff_cache .hypothesis
