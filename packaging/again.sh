#!/usr/bin/env bash
# Builds wheel, source archive, single file and packages once more, from a copy of the checkout in another folder and under
# other settings, and compares them byte by byte with those in FOLDER: whoever has the source can tell that nothing else is in
# what is shipped.
#
#   packaging/again.sh FOLDER
set -euo pipefail

readonly UMASK=027 ZONE=Pacific/Auckland
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=packaging/common.sh
source packaging/common.sh

BUILT=$(realpath "${1:?usage: packaging/again.sh FOLDER}")
CHECKOUT=$PWD
# The same interpreter, though home is another.
MARCHPROXY_PYTHONS=${MARCHPROXY_PYTHONS:-${XDG_CACHE_HOME:-$HOME/.cache}/marchproxy/cpython}
export MARCHPROXY_PYTHONS
NAMES=(
    "marchproxy-$(version).tar.gz"
    "marchproxy-$(version)-py3-none-any.whl"
    "$(artifact_name)-linux-amd64"
    "marchproxy_$(version)_amd64.deb"
    "marchproxy-diag_$(version)_all.deb"
)
readonly BUILT CHECKOUT NAMES
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Longer than the first, and with a blank: a path that gets into the bytes is seen.
readonly COPY="$scratch/another folder"

copy_checkout() {
    mkdir -p "$COPY/build"
    git -c safe.directory='*' ls-files -z --cached --others --exclude-standard | tar -c --null --files-from=- | tar -x -C "$COPY"
    # What is fetched is the same by its hashes, and need not be fetched again.
    ln -s "$CHECKOUT/.venv" "$COPY/.venv"
    ln -s "$CHECKOUT/build/wheels" "$COPY/build/wheels"
    # The name of the single file tells of a tag.
    git -c safe.directory='*' rev-parse --is-inside-work-tree >/dev/null 2>&1 && cp -a .git "$COPY/.git"
}

build() {
    cd "$COPY"
    umask "$UMASK"
    export TZ=$ZONE LC_ALL=C HOME=$scratch
    make --silent -C marchproxy/bpf
    .venv/bin/python -m hatchling build --target sdist --target wheel
    packaging/payload.sh build/payload
    packaging/selfextract.sh build/payload dist
    packaging/deb.sh build/payload dist
}

# What differs, down to files, where it is a package.
explain() {
    [[ $1 == *.deb ]] || return 0
    dpkg-deb -R "$BUILT/$1" "$scratch/first-$1"
    dpkg-deb -R "$COPY/dist/$1" "$scratch/second-$1"
    diff -rq "$scratch/first-$1" "$scratch/second-$1" 2>&1 | head -n 20 >&2 || true
}

say "Copying the checkout"
copy_checkout
say "Building in another folder"
(build) >"$scratch/log" 2>&1 || {
    tail -n 20 "$scratch/log" >&2
    fail "it does not build there" "The last lines stand above."
}
for name in "${NAMES[@]}"; do
    if ! cmp "$BUILT/$name" "$COPY/dist/$name" >&2; then
        explain "$name"
        fail "$name is not the same bytes" "What differs stands above."
    fi
    say "$name: the same, $(sha256sum <"$BUILT/$name" | cut -d' ' -f1)"
done
