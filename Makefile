# Every target makes the virtual environment it needs, once, and again when pyproject.toml or constraints.txt change.
PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test browser faults lint

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## teach the built-in model five concepts, one after another, and report what it still knows
	$(VENV)/bin/mnemon demo

test: $(INSTALLED) ## run the tests on all cores (those marked slow or gpu apart)
	$(VENV)/bin/python -m pytest -n auto --dist worksteal

browser: $(INSTALLED) ## run the tests that start the page of `mnemon web`, and a browser if there is one
	$(VENV)/bin/python -m pytest -m browser

faults: $(INSTALLED) ## kill, fail and damage a library at every place; minutes
	$(VENV)/bin/python -m pytest tests/faults -m "faults or not faults"

lint: $(INSTALLED) ## check style and types
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("mnemon needs Python 3.11 or newer: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e ".[dev,track,web]"
	@touch $@
