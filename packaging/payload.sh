#!/usr/bin/env bash
# Builds the payload: one folder that runs wherever it is put, on machines without Python and libbpf.
#
#   packaging/payload.sh FOLDER
#
#   bin/marchproxy             the command, a launcher
#   bin/python3.N              CPython, its library without what a server has no use for
#   lib/python3.N/             the standard library, MarchProxy and its locked dependencies, compiled
#   lib/*.so.*                 the libraries that these are linked to, except for libc
#   lib/fallback/libbpf.so.1   for systems that have none
#   share/                     licences, and lists of what is in here (packaging/sbom.py)
#
# The interpreter is the one of scripts/cpython.sh where that is built, else the one that .venv was made with. It runs where
# glibc is as new as where it was built, or newer.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=packaging/common.sh
source packaging/common.sh
unset PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME

readonly TREE=${1:?usage: packaging/payload.sh FOLDER}
readonly PYTHON=.venv/bin/python
readonly WHEELS=build/wheels
# Where the Debian package puts it; tracebacks name files by it.
readonly INSTALLED=/usr/lib/marchproxy
# Of the standard library: tests, graphics, the interactive prompt, what builds and installs Python packages.
readonly UNUSED=(
    __pycache__ site-packages test idlelib tkinter turtledemo turtle.py lib2to3 ensurepip venv pydoc_data macholib
    'config-*' '_sysconfigdata_*' '_test*.so' '_xx*.so' 'xx*.so' '_tkinter*' '_curses*' '_dbm*' '_gdbm*' 'readline*' 'nis*.so'
)
# glibc itself has to be the system's own.
readonly GLIBC='^(ld-linux.*|libc|libm|libdl|librt|libpthread|libutil|libresolv|libnss_.*)\.so'

# The wheels are for one minor version.
interpreter() {
    local fast
    if fast=$(scripts/cpython.sh --where) && [[ -x ${fast%/*}/$NAME ]]; then
        printf '%s\n' "${fast%/bin/*}"
        return 0
    fi
    say "Carrying the interpreter of .venv; make python builds one that is compiled for speed" >&2
    "$PYTHON" -c 'import sys; print(sys.base_prefix)'
}

copy_interpreter() {
    local base excludes=()
    base=$(interpreter)
    [[ $base != /usr ]] || fail "the distribution's own Python is spread over /usr and cannot be carried" \
        "Have one from pyenv or uv on PATH, remove .venv, and run this again."
    say "Copying Python from $base"
    mkdir -p "$TREE/bin" "$TREE/lib/fallback"
    cp -L "$base/bin/$NAME" "$TREE/bin/$NAME"
    [[ ! -e $base/lib/lib$NAME.so.1.0 ]] || cp -L "$base/lib/lib$NAME.so.1.0" "$TREE/lib/"
    mapfile -t excludes < <(printf -- '--exclude=%s\n' "${UNUSED[@]}")
    tar -C "$base/lib" "${excludes[@]}" -c "$NAME" | tar -C "$TREE/lib" -x
}

# Exactly the locked versions, which set-up has fetched and checked; of those, what MarchProxy's own metadata asks for.
install_packages() {
    local site=$TREE/lib/$NAME/site-packages
    say "Installing MarchProxy and its dependencies"
    "$PYTHON" -m hatchling build --target wheel --directory "$SCRATCH" >/dev/null 2>&1 ||
        fail "the wheel cannot be built" "make wheel says why."
    "$PYTHON" -m pip install --quiet --no-compile --no-index --find-links "$WHEELS" --target "$site" \
        "$SCRATCH"/marchproxy-*.whl
    # Commands of libraries, and what pip notes about where it got the files.
    rm -rf "${site:?}/bin" "$site"/*.dist-info/{RECORD,REQUESTED,INSTALLER,direct_url.json}
    find "$site" -name '*.pyi' -delete
    # All that wants a libstdc++, which would want glibc 2.36, newer than Ubuntu 22.04 has. There it is in Python, too.
    find "$site/frozenlist" -name '*.so' -delete
    # The page of textual-serve names a font of Google's. Our headers forbid a browser to ask for it; Debian wants it gone.
    sed -i 's#https://fonts.googleapis.com/[^"]*#data:text/css,#' "$site/textual_serve/templates/app_index.html"
    # Nothing in there is started by its name.
    grep -rlZ --include='*.py' -m 1 '^#!' "$TREE/lib/$NAME" | xargs -0 sed -i '1s/^#!.*/#/'
}

copy_libbpf() {
    local found
    found=$(compgen -G '/usr/lib/*/libbpf.so.1' | head -n 1) || fail "there is no libbpf.so.1 to carry" \
        "Install the package libbpf1."
    cp -L "$found" "$TREE/lib/fallback/libbpf.so.1"
    came_from fallback/libbpf.so.1 "$found"
}

# Every library that something in the tree is linked to and that is not in it yet; theirs, too, since ldd names all of them.
copy_libraries() {
    local name path
    while read -r name path; do
        [[ ! $name =~ $GLIBC && ! -e $TREE/lib/$name ]] || continue
        cp -L "$path" "$TREE/lib/$name"
        came_from "$name" "$path"
    done < <(objects | xargs -0 ldd 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' | sort -u)
}

# For the list of what is in here: a library, and the file of this machine that it is.
came_from() { printf '%s\t%s\n' "$1" "$2" >>"$SCRATCH/libraries"; }

objects() { find "$TREE" -type f \( -name '*.so' -o -name '*.so.*' -o -path "$TREE/bin/*" \) -print0; }

# What is linked by a path of this machine is from now on looked for in the tree. Wheels bring libraries of their own, found
# by $ORIGIN already.
relocate() {
    local file
    while IFS= read -r -d '' file; do
        strip --strip-unneeded "$file"
        [[ $(patchelf --print-rpath "$file") != *\$ORIGIN* ]] || continue
        # shellcheck disable=SC2016  # for the linker, not for the shell
        patchelf --set-rpath '$ORIGIN/'"$(realpath --relative-to="${file%/*}" "$TREE/lib")" "$file"
    done < <(objects | sort -z)
}

# Once, and in one process: what marshal writes depends on what the process has compiled before. Hashes that nobody checks
# instead of times: a copy of the tree has other times.
compile() {
    say "Compiling"
    env -i PYTHONHASHSEED=0 "$TREE/bin/$NAME" -s -B packaging/readymade.py ||
        fail "the methods of dataclasses cannot be compiled" "The reason stands above."
    env -i PYTHONHASHSEED=0 "$TREE/bin/$NAME" -s -m compileall -q -f --invalidation-mode unchecked-hash \
        -s "$TREE" -p "$INSTALLED" "$TREE/lib/$NAME" || fail "a module does not compile" "Its name stands above."
}

list_contents() {
    say "Listing what is in it"
    "$PYTHON" packaging/sbom.py "$TREE" "$WHEELS" "$SCRATCH/libraries" ||
        fail "the lists of contents and licences cannot be made" "The reason stands above."
}

finish() {
    install -m 755 packaging/launcher.sh "$TREE/bin/marchproxy"
    sed -i "s/@PYTHON@/$NAME/" "$TREE/bin/marchproxy"
    install -D -m 644 LICENSE.md "$TREE/share/LICENSE.md"
    chmod 755 "$TREE/bin"/*
    find "$TREE/lib" "$TREE/share" -type f -exec chmod 644 {} +
    find "$TREE" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
}

[[ -x $PYTHON && -d $WHEELS ]] || fail "there is no .venv, or no $WHEELS" "Run: scripts/setup.sh ship"
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
NAME=$("$PYTHON" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
readonly NAME
rm -rf "$TREE"
copy_interpreter
install_packages
copy_libbpf
copy_libraries
relocate
compile
list_contents
finish
say "$TREE: $(du -sm "$TREE" | cut -f1) MB"
