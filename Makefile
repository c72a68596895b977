# `make` alone lists what can be done; the list is made from the comments behind the targets.
SHELL := /bin/bash
PYTHON := .venv/bin/python
SCRIPTS = .ci/run $(shell git ls-files '*.sh') $(wildcard packaging/deb/debian/*inst packaging/deb/debian/*rm)
# Set, it would leave the environment without .pyc files and double every start.
unexport PYTHONDONTWRITEBYTECODE
# The time that everything in what is built has; another one is another build.
EPOCH := $(shell source packaging/common.sh && echo $$SOURCE_DATE_EPOCH)
BINARY := dist/$(shell source packaging/common.sh && artifact_name)-linux-amd64
DEB := dist/marchproxy_$(shell source packaging/common.sh && version)_amd64.deb
SHIPPED := $(shell git ls-files marchproxy) pyproject.toml README.md LICENSE.md .version requirements.lock packaging/payload.sh packaging/launcher.sh packaging/common.sh packaging/readymade.py packaging/sbom.py
PAYLOAD := build/payload-$(EPOCH).stamp

.PHONY: help setup run demo screenshots test boot qemu lint format bench packets soak fuzz models conformance profile bpf ship python wheel payload binary deb again audit release-check man lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what running needs, compile the kernel programs; once
	@scripts/setup.sh run

run: setup ## start the appliance on this machine
	.venv/bin/marchproxy init
	.venv/bin/marchproxy run

demo: setup ## show an appliance at work between network namespaces (root)
	$(PYTHON) demo/run.py

screenshots: setup ## draw the terminal front end anew, docs/screenshots (root, two minutes)
	$(PYTHON) demo/pictures.py

test: ## run every test that this machine allows, but those of boot; ARGS="-k ports" chooses
	@scripts/setup.sh test
	$(PYTHON) -m pytest --numprocesses 2 --dist loadfile $(patsubst %,--ignore %,$(BOOTED) tests/packaging/test_kernel.py) $(ARGS)

BOOTED := $(wildcard tests/packaging/test_boot*.py) tests/packaging/test_ubuntu.py
boot: ## test the package in systems of its own that boot: Debian 12 and 13, Ubuntu 22.04 and 24.04 (root, minutes)
	@scripts/setup.sh test
	@scripts/testroots.sh
	$(PYTHON) -m pytest $(BOOTED) $(ARGS)

qemu: ## test it on the own kernels of Debian 12 (6.1) and Ubuntu 22.04 (5.15), emulated (root, half an hour)
	@scripts/setup.sh test
	@scripts/testroots.sh
	@scripts/testkernel.sh
	$(PYTHON) -m pytest tests/packaging/test_kernel.py $(ARGS)

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
	$(PYTHON) -m benchmarks.http
	$(PYTHON) -m benchmarks.memory
	$(PYTHON) -m benchmarks.series

packets: ## compare what packets cost in the kernel with what is kept of that (root, half a minute)
	@scripts/setup.sh test
	$(PYTHON) -m benchmarks.packet --check --packets 2000 --rounds 5

SECONDS := 600
EXAMPLES := 50
soak: ## let mixed traffic run for ten minutes and look for what grows (root); SECONDS=3600, FAULTS=all, ARGS="--seed 7"
	@scripts/setup.sh test
	$(PYTHON) -m benchmarks.soak --seconds $(SECONDS) $(if $(FAULTS),--faults $(FAULTS)) $(ARGS)

fuzz: ## give hostile input to everything that reads, for SECONDS=600; finds are kept in tests/corpus (root not needed)
	@scripts/setup.sh test
	$(PYTHON) -m tests.fuzz --seconds $(SECONDS) $(ARGS)

models: ## hold the kernel programs against models with fifty times as many sequences (root); EXAMPLES=500
	@scripts/setup.sh test
	MARCHPROXY_EXAMPLES=$(EXAMPLES) $(PYTHON) -m pytest --timeout 3600 tests/bpf/test_flow_model.py \
	    tests/bpf/test_drain_model.py tests/bpf/test_plan_changes.py $(ARGS)

conformance: ## run suites that others wrote, and write what they say to docs/CONFORMANCE.md (root); H2SPEC=PATH, ARGS=--all
	@scripts/setup.sh bench
	@scripts/setup.sh test
	H2SPEC=$(H2SPEC) $(PYTHON) -m conformance $(ARGS)

profile: ## show where the time goes (root, a minute); ARGS="http packets" chooses
	@scripts/setup.sh bench
	$(PYTHON) -m benchmarks.profiles $(ARGS)

python: ## build the interpreter that packages carry, compiled for speed; once (a quarter of an hour)
	@scripts/cpython.sh

wheel: setup ## build the wheel and the source archive into dist/
	SOURCE_DATE_EPOCH=$(EPOCH) $(PYTHON) -m hatchling build --target sdist --target wheel

ship: ## install what building packages needs
	@scripts/setup.sh ship

payload: ship $(PAYLOAD) ## build the folder that file and package are made of: Python, libraries, MarchProxy

$(PAYLOAD): $(SHIPPED)
	packaging/payload.sh build/payload
	touch $@

binary: ship $(BINARY) ## build the single file into dist/

$(BINARY): $(PAYLOAD) packaging/selfextract.sh packaging/header.sh
	packaging/selfextract.sh build/payload dist

deb: ship $(DEB) ## build the Debian packages into dist/

$(DEB): $(PAYLOAD) $(shell git ls-files packaging/deb systemd) packaging/deb.sh scripts/manpages.py docs/RELEASE_NOTES.md
	packaging/deb.sh build/payload dist

again: wheel binary deb ## build wheel, file and packages once more in another folder: they have to be the same bytes
	packaging/again.sh dist

# What is not tested, for want of a root to boot or of something in this kernel, is a failure.
release-check: python wheel binary deb ## build all that is released, build it again, and test it where it boots (root, half an hour)
	@scripts/setup.sh test
	@scripts/testroots.sh
	packaging/again.sh dist
	previous=$$(packaging/previous.sh) && CI=true MARCHPROXY_EXCUSES=none MARCHPROXY_TEST_PREVIOUS=$$previous \
	    SOURCE_DATE_EPOCH=$(EPOCH) $(PYTHON) -m pytest tests/packaging tests/repo --deselect tests/packaging/test_again.py \
	    --ignore tests/packaging/test_kernel.py $(ARGS)
	@scripts/audit.sh || [ $$? = 3 ]

audit: setup ## ask OSV about known vulnerabilities of the locked packages (needs a network)
	@scripts/audit.sh

man: setup ## write the manual pages into build/man
	$(PYTHON) scripts/manpages.py build/man

bpf: setup ## compile the kernel programs that changed

lock: ## resolve the dependencies again (needs uv: .venv/bin/pip install uv)
	scripts/lock.sh

clean: ## remove everything that the targets made
	rm -rf .venv .uv build dist marchproxy/bpf/objects .*_cache .hypothesis benchmarks/results
	find . -name __pycache__ -prune -exec rm -rf {} +
