# Every target is a line or two that calls a script; 'make help' lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo test soak bench lab lab-destroy lint unit sanity molecule docs-check collection lock messages docsite execution-environment

HOSTS ?= 3
ROUNDS ?= 200
SCENARIO ?= all
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Every start of Ansible would compile all of it again.
unexport PYTHONDONTWRITEBYTECODE
SETUP := tests/setup.sh
GATES := .venv/bin/python tests/gates/run.py
LAB := PYTHONPATH=molecule .venv/bin/python -m lab

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "make %-21s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv with Ansible, which is all that deploying from here needs
	@$(SETUP) python

demo: ## show everything on two lab hosts made for it
	@$(SETUP)
	@.venv/bin/python tests/demo/run.py

test: ## run every gate and test (or some: make test PHASES="unit sanity")
	@$(SETUP)
	@$(GATES) $(PHASES)

soak: ## snapshots under load, and kills at random points, as often as you like (ROUNDS=200)
	@$(SETUP)
	@ROUNDS=$(ROUNDS) $(GATES) soak

bench: ## measure a converge beside community.docker's, backups beside bare restic, moves beside bare rsync, fleets (over an hour)
	@$(SETUP)
	@$(GATES) bench bench-backup bench-move bench-fleet bench-simulation

lab: ## bring up lab hosts and an inventory, build/lab/inventory.yml (HOSTS=3)
	@$(SETUP)
	@$(LAB) up --hosts $(HOSTS)

lab-destroy: ## remove every lab host and what belongs to them
	@$(SETUP)
	@$(LAB) down

lint: ## yamllint, ruff, mypy, ansible-lint
	@$(SETUP) python
	@$(GATES) yamllint ruff mypy ansible-lint

unit: ## the unit tests
	@$(SETUP) python
	@$(GATES) unit

sanity: ## ansible-test sanity
	@$(SETUP) python
	@$(GATES) sanity

molecule: ## the Molecule scenarios (SCENARIO=stack_path for one)
	@$(SETUP)
	@SCENARIO=$(SCENARIO) $(GATES) molecule

docs-check: ## check every example in the documentation
	@$(SETUP) python
	@$(GATES) docs

messages: ## write docs/messages/ anew from the sentences in the code
	@$(SETUP) python
	@.venv/bin/python tests/gates/messages.py

docsite: ## build the collection's documentation as HTML in build/docsite/html
	@$(SETUP) python
	@$(GATES) docsite

execution-environment: ## make the context of the controller's image in build/execution-environment/context
	@$(SETUP) python
	@$(GATES) execution-environment

collection: ## build the collection and install it into an empty place
	@$(SETUP) python
	@$(GATES) collection

lock: ## pin requirements.in anew in requirements.txt
	@tests/gates/lock.sh
