#!/usr/bin/env bash
# Writes requirements.lock (the appliance), requirements-dev.lock (the same versions, and the tools around them) and
# requirements-bench.lock (and what it is measured against) from pyproject.toml: every platform's hashes, so that plain pip can install them with --require-hashes anywhere.
#
#   scripts/lock.sh [UV OPTION...]    for instance --upgrade, or --upgrade-package rich
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=".venv/bin:$PATH"

lock() {
    local output=$1
    shift
    uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-annotate \
        --custom-compile-command "make lock" --output-file "$output" --group build "$@" pyproject.toml
}

lock requirements.lock "$@"
lock requirements-dev.lock --group dev --constraint requirements.lock "$@"
lock requirements-bench.lock --group dev --group bench --constraint requirements-dev.lock "$@"
