# shellcheck shell=bash
# Finding a Python, and giving the checkout an environment of its own. Sourced by setup.sh.

readonly WHEELS=build/wheels

# Also leaves out interpreters that were built without the libraries the appliance cannot do without.
usable_python() {
    "$1" -c 'import ctypes, sqlite3, ssl, sys; sys.exit(sys.version_info < (3, 12))' </dev/null >/dev/null 2>&1
}

# Every place where one may be, best first. A pyenv shim may exist and not work (its version is not the folder's), and
# uv sees pyenv's interpreters through these shims only: so pyenv's folders are named themselves.
python_candidates() {
    local name uv
    # Compiled for speed, if somebody had the patience.
    scripts/cpython.sh --where || true
    for name in "python$(<.python-version)" python3.14 python3.13 python3.12 python3; do
        command -v "$name" || true
    done
    compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.*/bin/python3" | sort -rV || true
    if uv=$(find_uv); then
        UV_PYTHON_DOWNLOADS=never "$uv" python find --quiet --no-project '>=3.12' 2>/dev/null || true
    fi
}

find_uv() {
    PATH="$PATH:$HOME/.local/bin:$HOME/.cargo/bin:$PWD/.uv/bin" command -v uv
}

# Prints the interpreter's own path, never a shim's.
find_python() {
    local candidate
    while read -r candidate; do
        usable_python "$candidate" || continue
        "$candidate" -c 'import sys; print(sys.executable)'
        return 0
    done < <(python_candidates)
    return 1
}

# uv fetches a Python that needs nothing of the system. Where uv is missing, it comes from PyPI into a folder of its own.
download_python() {
    local uv
    if ! uv=$(find_uv); then
        require_venv_module || return 1
        step "Installing uv, to fetch a Python with"
        python3 -m venv --clear .uv && .uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5,<1' ||
            return 1
        uv=$(find_uv) || return 1
    fi
    step "Fetching Python 3.13 with uv"
    timeout 300 "$uv" python install --quiet 3.13
}

require_venv_module() {
    ! python3 -c 'import ensurepip' 2>/dev/null || return 0
    is_root && (install_packages python3-venv)
}

# Debian 13 and Ubuntu 24.04 package one; Debian 12 does not.
install_python() {
    local version
    ! is_root || update_package_lists
    for version in 3.13 3.12; do
        apt-cache show "python$version" >/dev/null 2>&1 || continue
        install_packages "python$version" "python$version-venv"
        return 0
    done
    ! download_python || return 0
    fail "no Python 3.12 or newer on PATH, under pyenv or from uv, and this release packages none" \
        "Install one of these two ways, then run the same command again:" \
        "  uv:     curl -LsSf https://astral.sh/uv/install.sh | sh && ~/.local/bin/uv python install 3.13" \
        "  pyenv:  curl -fsSL https://pyenv.run | bash && ~/.pyenv/bin/pyenv install 3.13"
}

# A virtual environment in .venv; the one that is there stays as long as its interpreter works.
require_environment() {
    ! usable_python .venv/bin/python || return 0
    local python
    find_python >/dev/null || install_python
    python=$(find_python) || fail "Python was installed and still cannot be found" "Look at: python3.13 --version"
    step "Creating .venv with $python ($("$python" -c 'import platform; print(platform.python_version())'))"
    create_environment "$python"
}

# Debian splits ensurepip off into python3.x-venv. uv brings a pip of its own and needs neither.
create_environment() {
    local python=$1 version uv
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        if uv=$(find_uv); then
            "$uv" venv --quiet --clear --seed --python "$python" .venv
            return 0
        fi
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        install_packages "python$version-venv"
    fi
    "$python" -m venv --clear .venv
}

# What a package carries, as it comes from the index: building it then needs no network.
require_wheels() {
    local state
    state=$(sha256sum <requirements.lock)
    [[ ! -e $WHEELS/.complete || $(<"$WHEELS/.complete") != "$state" ]] || return 0
    step "Fetching the packages of requirements.lock into $WHEELS"
    rm -rf "$WHEELS"
    .venv/bin/python -m pip download --quiet --disable-pip-version-check --only-binary :all: --require-hashes \
        -r requirements.lock -d "$WHEELS" ||
        fail "pip could not fetch requirements.lock" "Its message stands above; mostly it is the network or a proxy setting."
    printf '%s' "$state" >"$WHEELS/.complete"
}

# require_locked LOCK: the packages of one lock file and this checkout, installed once for each state of both.
require_locked() {
    local lock=$1 state stamp=.venv/.installed-${1%.lock}
    state=$(pwd && cat "$lock" pyproject.toml .version scripts/*.sh | sha256sum)
    [[ ! -e $stamp || $(<"$stamp") != "$state" ]] || return 0
    step "Installing $(grep -c '==' "$lock") locked Python packages from $lock"
    .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off --require-hashes -r "$lock" |
        sed -un 's/^Collecting \([^ ]*\).*/    \1/p' ||
        fail "pip could not install $lock" "Its message stands above; mostly it is the network or a proxy setting."
    step "Installing this checkout, editable"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
    printf '%s' "$state" >"$stamp"
}
