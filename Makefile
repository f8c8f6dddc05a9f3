VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-all test-extras clients lint docs install

demo: install  ## four small models of the reviews that come with metakd, and a table of what they lost and won
	$(BIN)/metakd demo --resume --output runs/demo

test: install
	$(BIN)/pytest --numprocesses logical --dist loadgroup

test-all: install  ## the slow ones too: whole runs, also with a real encoder, stopped and gone on with
	$(BIN)/pytest --numprocesses logical --dist loadgroup -m "slow or not slow" --durations 25

test-extras: install .venv-optimum/.installed  ## exported models in Optimum, which wants an older transformers
	$(BIN)/pytest tests/export/test_clients.py

clients:  ## what runs exported models in JavaScript, for `make test-all`; needs npm
	npm ci --ignore-scripts --no-audit --no-fund --prefix tests/clients

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src benchmarks docs examples tools
	$(BIN)/python tools/audit.py

docs: install  ## the pages under docs/, as HTML in build/docs
	$(BIN)/sphinx-build -q -W --keep-going docs build/docs

install: $(INSTALLED)

.venv-optimum/.installed: tests/clients/requirements.txt
	$(PYTHON) -m venv --clear .venv-optimum
	.venv-optimum/bin/python -m pip install --quiet -r tests/clients/requirements.txt
	touch $@

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@
