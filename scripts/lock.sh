#!/usr/bin/env bash
# Writes from pyproject.toml requirements.lock (the appliance), requirements-dev.lock (the same versions, and the tools around
# them), requirements-bench.lock (and what it is measured against), requirements-mitmproxy.lock (the same, in an environment of its
# own) and requirements-audit.lock (what `make audit` asks with): every platform's hashes, so that plain pip can install them with --require-hashes anywhere.
#
#   scripts/lock.sh [UV OPTION...]    for instance --upgrade, or --upgrade-package rich
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=".venv/bin:$PATH"

lock() {
    local output=$1
    shift
    uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-annotate \
        --custom-compile-command "make lock" --output-file "$output" "$@"
}

lock requirements.lock --group build "$@" pyproject.toml
lock requirements-dev.lock --group build --group dev --constraint requirements.lock "$@" pyproject.toml
lock requirements-bench.lock --group build --group dev --group bench --constraint requirements-dev.lock "$@" pyproject.toml
lock requirements-audit.lock --group audit "$@"
lock requirements-mitmproxy.lock --group mitmproxy "$@"
