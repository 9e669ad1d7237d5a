# make demo   sets up .venv and shows the whole chain; ONCE=1 ends by itself
# make test   sets up what tests need, runs the checks and every test
# make check  lint, format, types, import rules
# make audit  asks the advisory database about every pinned version; needs the network
# What is set up already is skipped: a second run needs no network.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= deploy/constraints.txt
# Two at a time: most of what the system's tests do is wait for peers. A worker that dies ends its half of the run at
# once with a failure: pytest-xdist 3.8 hands a replaced worker files that are done already, and waits for ever.
PYTEST_ARGS ?= -n 2 --dist loadfile --max-worker-restart=0
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install -qq --no-compile \
	$(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
PROJECT := setup.cfg pyproject.toml $(CONSTRAINTS)

.DEFAULT_GOAL := demo
.PHONY: demo test check peers constraints audit

demo: $(VENV)/.ready
	$(BIN)/firstread demo $(if $(ONCE),--once)

test: check peers
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --config setup.cfg

# Real peers (DCMTK, Orthanc, a browser ...) are the system's packages: installed where we may, asked for where not.
peers:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then sh deploy/install-peers.sh; \
	else sh deploy/install-peers.sh --check || echo "Tests that need them are skipped."; fi

# Renews the pins from what is installed: make test, then make constraints, then make test in a fresh clone.
constraints: $(VENV)/.ready-test
	$(BIN)/python deploy/pin.py > deploy/constraints.txt.new
	mv deploy/constraints.txt.new deploy/constraints.txt

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Firstread needs Python 3.11 or later: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python3 -m venv failed: on Debian, apt-get install python3-venv"; exit 1; }

# Without build isolation pip asks no registry for what is installed already.
$(VENV)/.build: | $(BIN)/python
	$(PIP) 'setuptools>=77'
	touch $@

$(VENV)/.ready: $(VENV)/.build $(PROJECT)
	@echo "Installing Firstread and what it needs into $(VENV): some minutes the first time"
	$(PIP) --no-build-isolation --editable .
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	@echo "Installing what tests need into $(VENV)"
	$(PIP) --no-build-isolation --editable '.[test,bench]'
	touch $@

audit: $(BIN)/python
	$(BIN)/python -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip --disable-pip-version-check install -qq pip-audit
	$(VENV)/audit/bin/pip-audit --requirement $(CONSTRAINTS) --no-deps --disable-pip
