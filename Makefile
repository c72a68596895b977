# `make` alone lists what can be done; the list is made from the comments behind the targets.
SHELL := /bin/bash
PYTHON := .venv/bin/python
SCRIPTS = .ci/run $(shell git ls-files '*.sh')
# Set, it would leave the environment without .pyc files and double every start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup run demo test lint format bench bpf lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what running needs, compile the kernel programs; once
	@scripts/setup.sh run

run: setup ## start the appliance on this machine
	.venv/bin/marchproxy init
	.venv/bin/marchproxy run

demo: setup ## show an appliance at work between network namespaces (root)
	$(PYTHON) demo/run.py

test: ## run every test that this machine allows; ARGS="-k ports" chooses
	@scripts/setup.sh test
	$(PYTHON) -m pytest --numprocesses 2 --dist loadfile $(ARGS)

lint: ## check style, types, layers and scripts
	@scripts/setup.sh test
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	.venv/bin/lint-imports
	shellcheck --external-sources $(SCRIPTS)

format: ## let ruff correct what it can
	@scripts/setup.sh test
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format

bench: ## measure against plain routing and other proxies (root, minutes)
	@scripts/setup.sh bench
	$(PYTHON) -m benchmarks
	$(PYTHON) -m benchmarks.tunnels
	$(PYTHON) -m benchmarks.memory

bpf: setup ## compile the kernel programs that changed

lock: ## resolve the dependencies again (needs uv: .venv/bin/pip install uv)
	scripts/lock.sh

clean: ## remove everything that the targets made
	rm -rf .venv .uv build dist marchproxy/bpf/objects .*_cache .hypothesis benchmarks/results
	find . -name __pycache__ -prune -exec rm -rf {} +
