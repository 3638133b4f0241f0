# Two commands do everything on a fresh Linux with CPython 3.11 or newer:
#   make demo    sets up .venv, then takes a bundled data set from file to served model
#   make test    the same .venv, every test
# `make help` lists the rest.

VENV    := .venv
BIN     := $(VENV)/bin
PY      := $(BIN)/python
WORKERS ?= 2

# Where torch comes from. Empty: the indexes that pip knows already. On a machine without a GPU
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
# saves several GB of CUDA packages.
TORCH_INDEX ?=

# One stamp per content of what an install depends on, and per place: a second `make` installs nothing.
KEY   := $(shell { cat settings.ini setup.py constraints.txt; echo '$(CURDIR) $(TORCH_INDEX)'; } | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.installed-$(KEY)

PIP := $(PY) -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

# Small matrices on few cores are many times slower when OpenMP threads spin.
export OMP_WAIT_POLICY := PASSIVE
export PYTHONWARNINGS ?= ignore::DeprecationWarning:papermill

.DEFAULT_GOAL := help
.PHONY: help install demo test notebooks pytest lab docs check bench export clean readme

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## .venv with mlbench, editable, and everything that a developer needs

$(STAMP):
	@sh tools/python.sh $(VENV) $(PYTHON)
	@echo "Installing into $(VENV) (some minutes the first time): torch first, then the rest, at the versions of constraints.txt"
	@$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	@$(PIP) --editable '.[dev]'
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: $(STAMP) ## the whole chain on a bundled real data set, in ./demo
	@$(BIN)/mlbench demo demo

test: $(STAMP) ## every test: the library notebooks, then tests/
	@failed=0; $(MAKE) --no-print-directory notebooks || failed=1; $(MAKE) --no-print-directory pytest || failed=1; exit $$failed

notebooks: $(STAMP) ## the library notebooks, run as tests
	@echo "Library notebooks:"
	@$(BIN)/nbdev_test --n_workers $(WORKERS)

pytest: $(STAMP) ## tests/ alone
	@$(PY) -m pytest tests

lab: $(STAMP) ## JupyterLab on this checkout
	@$(BIN)/jupyter lab

docs: $(STAMP) ## the documentation site, in _docs/
	@$(PY) tools/build_site.py

check: $(STAMP) ## clean notebooks, export without a difference, lint, types, the floors of the house
	@$(PY) tools/check.py

bench: $(STAMP) ## the benchmarks, one after the other; quality.py, which takes hours, is run by its name
	@failed=0; for file in $(filter-out benchmarks/quality.py,$(wildcard benchmarks/*.py)); do echo "== $$file"; $(PY) $$file || failed=1; done; exit $$failed

export: $(STAMP) ## write mlbench/ and README.md from nbs/, and clean the notebooks
	@$(BIN)/nbdev_export && $(BIN)/nbdev_clean && $(BIN)/nbdev_clean --fname templates
	@$(PY) tools/readme.py

readme: $(STAMP) ## write README.md from nbs/index.ipynb
	@$(PY) tools/readme.py

clean: ## remove what the other commands made, .venv apart
	rm -rf _docs _proc build dist demo .pytest_cache .ruff_cache .mypy_cache .hypothesis
