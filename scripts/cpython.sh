#!/usr/bin/env bash
# Builds the CPython that packages carry: the locked release, compiled as CPython's authors advise for speed (profile and
# link-time optimisation), which interpreters of pyenv and many a container are not. Once for each release, in a folder that
# outlives the checkout; it takes a quarter of an hour on two processors.
#
#   scripts/cpython.sh           build it unless it is there
#   scripts/cpython.sh --where   only print its interpreter's path; exit code 1 where it is not built
#
# scripts/setup.sh makes .venv with it, and packaging/payload.sh carries it, wherever it is there. Its source comes from
# python.org or from Debian, whichever answers; the hash decides.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Called by a make, this is not a part of it.
unset MAKEFLAGS

HERE=$PWD
readonly HERE RELEASE=3.13.12
readonly SHA256=2a84cd31dd8d8ea8aaff75de66fc1b4b0127dd5799aa50a64ae9a313885b4593
readonly SOURCES=(
    "https://www.python.org/ftp/python/$RELEASE/Python-$RELEASE.tar.xz"
    "https://deb.debian.org/debian/pool/main/p/python3.13/python3.13_$RELEASE.orig.tar.xz"
    "http://deb.debian.org/debian/pool/main/p/python3.13/python3.13_$RELEASE.orig.tar.xz"
)
readonly NEEDS=(
    gcc:gcc
    make:make
    curl:curl
    xz:xz-utils
    /usr/include/bzlib.h:libbz2-dev
    /usr/include/lzma.h:liblzma-dev
    /usr/include/openssl/ssl.h:libssl-dev
    /usr/include/sqlite3.h:libsqlite3-dev
    /usr/include/uuid/uuid.h:uuid-dev
    /usr/include/zlib.h:zlib1g-dev
    "/usr/include/*/ffi.h:libffi-dev"
)
readonly PYTHONS=${MARCHPROXY_PYTHONS:-${XDG_CACHE_HOME:-$HOME/.cache}/marchproxy/cpython}
readonly FOLDER=$PYTHONS/$RELEASE

step() { printf '==> %s\n' "$*"; }
note() { printf '    %s\n' "$*" >&2; }

# fail WHAT HELP...: one sentence on what is wrong, then what to do, a line each.
fail() {
    printf 'cpython: %s\n' "$1" >&2
    shift
    (($# == 0)) || printf '%s\n' "$@" >&2
    exit 1
}

# shellcheck source=scripts/packages.sh
source scripts/packages.sh

built() { [[ -x $FOLDER/bin/python3 ]]; }

# fetch FILE: what has the hash is the release, wherever it is from.
fetch() {
    local source
    for source in "${SOURCES[@]}"; do
        step "Fetching $source"
        curl --fail --silent --show-error --location --connect-timeout 20 --max-time 600 --output "$1" "$source" || continue
        ! sha256sum --quiet --check <<<"$SHA256  $1" 2>/dev/null || return 0
        note "that is not the file whose hash is in scripts/cpython.sh"
    done
    fail "CPython $RELEASE cannot be fetched" "The reasons stand above; mostly it is the network or a proxy setting."
}

# run WHAT COMMAND...: says what takes long, and shows the log only where that failed.
run() {
    step "$1"
    "${@:2}" >"$SCRATCH/log" 2>&1 || {
        tail -n 40 "$SCRATCH/log" >&2
        fail "CPython $RELEASE does not build" "The end of the compiler's log stands above."
    }
}

build() {
    # Beside its place, where moving it is one step.
    SCRATCH=$(mktemp -d "$PYTHONS/.build.XXXXXX")
    trap 'rm -rf "$SCRATCH"' EXIT
    fetch "$SCRATCH/source.tar.xz"
    mkdir "$SCRATCH/source"
    tar -C "$SCRATCH/source" --strip-components 1 -xf "$SCRATCH/source.tar.xz"
    cd "$SCRATCH/source"
    # Its library is linked into the program, where calls need no table. C modules for its own tests are for nobody here.
    run "Configuring CPython $RELEASE" ./configure --prefix="$FOLDER" --enable-optimizations --with-lto \
        --with-ensurepip=no --disable-test-modules
    run "Compiling it, running it for a profile, and compiling it by that: a quarter of an hour" make -j "$(nproc)" \
        PROFILE_TASK="$HERE/scripts/training.py"
    run "Installing it into $FOLDER" make install DESTDIR="$SCRATCH/root"
    # All or nothing: what is at its place is complete.
    rm -rf "$FOLDER"
    mv "$SCRATCH/root$FOLDER" "$FOLDER"
}

# Sourced by its tests, run by everybody else.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    if [[ ${1-} == --where ]]; then
        built || exit 1
        printf '%s\n' "$FOLDER/bin/python3"
        exit 0
    fi
    (($# == 0)) || fail "unknown argument $1" "usage: scripts/cpython.sh [--where]"
    mkdir -p "$PYTHONS"
    # One at a time: who comes second finds it built.
    exec {turn}<"$PYTHONS"
    flock "$turn"
    built || { require_packages "${NEEDS[@]}" && build; }
    step "CPython $RELEASE: $FOLDER"
fi
