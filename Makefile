# What people do here, for make 3.81 (macOS) and later. `make` alone lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV ?= .venv
SUITE ?= chain
# Three have the groups of tests/harness/groups.py, which mostly wait; two have the rest, at a lower priority.
WORKERS ?= 5
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# PYTHON, if given, is the interpreter that .venv is made from.
export VENV PYTHON
# Set in many containers. Without bytecode every process compiles all that it imports: twice the CPU for a start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List the targets
	@echo "EmoStream: make <target>"
	@awk 'BEGIN { FS = ":.*## " } /^[a-z]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' Makefile

.PHONY: env
env: $(STAMP) ## Make the environment in .venv, after checking Python and Java

$(STAMP): requirements.txt pyproject.toml .ci/env
	@.ci/env

.PHONY: jars
jars: env ## Download the jars of Kafka and Spark into the user's cache, once, and let both start faster
	@$(BIN)/python -m pipeline.jars
	-@$(BIN)/python -m experiments.machine.class_archives

.PHONY: check
check: env ## Check lint, formatting, types and import contracts, and build the site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory docs

.PHONY: audit
audit: env ## Lint the image and its services, check licences, and look for known vulnerabilities
	$(BIN)/hadolint deploy/Containerfile
	$(BIN)/docker-compose --file deploy/compose.yaml config --quiet
	$(BIN)/python -m deploy.sbom --check
	$(BIN)/python -m deploy.audit

.PHONY: sbom
sbom: env ## Write the bill of materials (CycloneDX) into build/
	@$(BIN)/python -m deploy.sbom

.PHONY: docs
docs: env ## Build the site into build/docs; a warning is an error
	$(BIN)/python -m sphinx -E -W --keep-going -n -q docs build/docs

.PHONY: pictures
pictures: jars ## Take the pictures of the documents again, RUN=DIR that run's report too; needs Chromium
	@$(BIN)/python docs/pictures.py $(RUN)

.PHONY: test
test: jars ## Run all tests, the notebooks included; on Debian as root this installs Chromium and curl
	@.ci/browser
	@.ci/clients
	$(BIN)/pytest tests -n $(WORKERS) --durations=15

.PHONY: experiment
experiment: jars ## Run the first experiment and print its report's path last
	@$(BIN)/python -m experiments run

.PHONY: lab
lab: jars ## Open the notebooks in JupyterLab
	@$(BIN)/python -m experiments lab

.PHONY: up
up: jars ## Start the whole chain; Ctrl-C stops it
	@$(BIN)/python -m pipeline up

.PHONY: airflow
airflow: jars ## Start Airflow with the sweeps, until Ctrl-C; prints where to look
	@$(BIN)/python -m experiments airflow

.PHONY: bench
bench: jars ## Run a benchmark into reports/bench/: SUITE=chain, ingest, load, analysis, delivery, search, steady, twin, limits or soak
	@$(BIN)/python -m experiments bench $(SUITE)

.PHONY: claims
claims: env ## Compute every published number again from the rows that are kept
	@$(BIN)/python -m experiments claims

.PHONY: reproduce
reproduce: jars ## Say which published intervals hold on this machine, in at most 40 minutes
	@$(BIN)/python -m experiments reproduce

.PHONY: instrument
instrument: jars ## Plant faults in the instrument and the chain; each must be caught by its name: INSTRUMENT="--short"
	@$(BIN)/python -m experiments instrument $(INSTRUMENT)

.PHONY: faults
faults: jars ## Harm real chains under load, and account for every reaction: FAULTS="--seeds 3", FAULTS="--short"
	@$(BIN)/python -m experiments faults $(FAULTS)

.PHONY: jmeter
jmeter: jars ## Carry out JMeter's plan with the real JMeter, and audit it: JMETER="-Jusers=20 --attach FILE"
	@$(BIN)/python -m experiments jmeter $(JMETER)

.PHONY: locust
locust: env ## Open Locust's page with the project's users, for a chain that is up: LOCUST="--host URL --registry URL"
	@$(BIN)/python -m locust -f experiments/load/locustfile.py --class-picker --web-host 127.0.0.1 --host http://127.0.0.1:8000 $(LOCUST)

.PHONY: postman
postman: jars ## Run the Postman collection into reports/bench/, INGEST=URL REGISTRY=URL against a chain that is up
	@$(BIN)/python -m experiments postman $(if $(INGEST),--ingest $(INGEST)) $(if $(REGISTRY),--registry $(REGISTRY))

.PHONY: lock
lock: env ## Write both requirements.txt, the lists of jars and docs/licences.md, with the newest versions allowed
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --extra airflow --no-annotate --upgrade \
	    --generate-hashes --custom-compile-command 'make lock' --output-file requirements.txt pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --generate-hashes \
	    --constraint requirements.txt --custom-compile-command 'make lock' --output-file deploy/requirements.txt pyproject.toml
	@.ci/env
	@$(BIN)/python -m pipeline.jars --lock
	@$(BIN)/python -c 'from experiments.jmeter import home; home.lock()'
	@$(BIN)/python -m deploy.sbom --licences

.PHONY: clean
clean: ## Remove the environment and what tools left behind; reports and the jar cache stay
	rm -rf $(VENV) tests/harness/node/node_modules build dist docs/notebooks docs/reference .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
