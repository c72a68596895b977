#!/usr/bin/env bash
# Builds the Debian package of an earlier state, for tests that upgrade from it, and prints the path of the file.
#
#   packaging/previous.sh [COMMIT]    without it: the newest release before this state, or where nothing was released, the
#                                     last state of the day before this one's
#
# It is built once for each commit, in a copy below build/, with what that state asks for. Where its version is this one's,
# it is built as the build before it: a package manager only replaces what differs.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=packaging/common.sh
source packaging/common.sh
# Called by a make, this is not a part of it; and each state has a time of its own.
unset MAKEFLAGS SOURCE_DATE_EPOCH

history() { git -c safe.directory='*' "$@"; }

earlier() {
    history describe --tags --abbrev=0 --match 'v[0-9]*' HEAD^ 2>/dev/null && return 0
    history rev-list -1 --before="$(history log -1 --format=%cd --date=format:'%Y-%m-%d 00:00:00 %z')" HEAD
}

wanted=${1:-$(earlier)} || true
commit=$(history rev-parse --verify --quiet "${wanted:-none}^{commit}") ||
    fail "there is no earlier state to build: ${wanted:-no tag, and no commit of a day before}" \
        "In a shallow clone: git fetch --unshallow"
readonly COPY=build/previous-$commit

made() { compgen -G "$COPY/dist/marchproxy_*_amd64.deb"; }

if ! made >/dev/null; then
    say "Building the package of ${commit:0:12}, to upgrade from" >&2
    ours=$(version)
    rm -rf "$COPY"
    mkdir -p "$COPY"
    history archive "$commit" | tar -x -C "$COPY"
    if [[ $(<"$COPY/.version") == "v$ours" ]]; then
        printf 'v%s.%s\n' "${ours%.*}" "$((${ours##*.} - 1))" >"$COPY/.version"
    fi
    SOURCE_DATE_EPOCH=$(history log -1 --format=%ct "$commit") make -C "$COPY" deb >"$COPY.log" 2>&1 || {
        tail -n 20 "$COPY.log" >&2
        fail "the package of $commit does not build" "The end of $COPY.log stands above."
    }
fi
realpath "$(made)"
