#!/usr/bin/env bash
# Asks OSV (https://osv.dev) whether one of the locked packages has a known vulnerability. It needs a network.
#
#   scripts/audit.sh [LOCK...]    requirements.lock unless given: what is shipped
#
# What is linked into wheels (OpenSSL in cryptography, for one) is covered as far as their advisories say so; libraries of the
# distribution are not: the SBOM in the payload names their versions.
# OSV_URL is another place that answers as https://api.osv.dev/v1/query does.
# Exit codes: 0 nothing is known; 1 something is, it stands above; 3 OSV could not be asked.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly TOOLS=build/audit
(($#)) || set -- requirements.lock

fail() {
    printf 'audit: %s\n' "$1" >&2
    exit "$2"
}

# In an environment of its own: what the tool needs has no business beside what it judges.
require_tool() {
    local state
    state=$(sha256sum <requirements-audit.lock)
    [[ ! -e $TOOLS/.complete || $(<"$TOOLS/.complete") != "$state" ]] || return 0
    printf '==> Installing pip-audit into %s\n' "$TOOLS"
    rm -rf "$TOOLS"
    .venv/bin/python -m venv "$TOOLS"
    "$TOOLS/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-audit.lock ||
        fail "pip-audit could not be installed" 3
    printf '%s' "$state" >"$TOOLS/.complete"
}

# audit LOCK: its exit code says both "found" and "could not ask"; only the former comes with a report.
audit() {
    local report errors
    report=$(mktemp) errors=$(mktemp)
    if "$TOOLS/bin/pip-audit" --vulnerability-service osv ${OSV_URL:+--osv-url "$OSV_URL"} --strict --require-hashes --disable-pip --requirement "$1" \
        --progress-spinner off --desc off --format json --output "$report" 2>"$errors"; then
        printf '%s: nothing is known about %s packages\n' "$1" "$(grep -c '==' "$1")"
    elif [[ -s $report ]]; then
        "$TOOLS/bin/python" - "$report" <<'PROGRAM'
import json, sys
for package in json.load(open(sys.argv[1]))["dependencies"]:
    for flaw in package.get("vulns", []):
        fixed = ", ".join(flaw["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {flaw['id']}, corrected in {fixed}")
PROGRAM
        found=1
    else
        tail -n 1 "$errors" >&2
        rm -f "$report" "$errors"
        fail "OSV could not be asked about $1" 3
    fi
    rm -f "$report" "$errors"
}

found=0
require_tool
for lock in "$@"; do
    audit "$lock"
done
exit "$found"
