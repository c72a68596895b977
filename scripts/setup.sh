#!/usr/bin/env bash
# Prepares this checkout and says each step.
#
#   scripts/setup.sh [run|ship|test|bench]
#
#   run    what the appliance and the demo need: a compiler for the BPF programs, libbpf, Python and the locked packages
#   ship   also what builds the single file and the Debian package
#   test   also what the tests and linters need
#   bench  also the programs that MarchProxy is measured against
#
# Every step looks before it acts: where all is in place this takes a fraction of a second and no network.
# Exit codes: 0 ready; 1 something could not be installed, said with what helps; 2 usage.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Without .pyc files every start of the command compiles its imports again, which doubles its time.
unset PYTHONDONTWRITEBYTECODE
# Called by a make, this is not a part of it.
unset MAKEFLAGS
# Commands for the administrator are not on everybody's PATH.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

step() { printf '==> %s\n' "$*"; }
note() { printf '    %s\n' "$*" >&2; }

# fail WHAT HELP...: one sentence on what is wrong, then what to do, a line each.
fail() {
    printf 'setup: %s\n' "$1" >&2
    shift
    printf '%s\n' "$@" >&2
    exit 1
}

# shellcheck source=scripts/packages.sh
source scripts/packages.sh
# shellcheck source=scripts/python.sh
source scripts/python.sh

# What to look for, and the Debian or Ubuntu package that brings it.
readonly RUN_NEEDS=(
    make:make
    clang:clang
    ip:iproute2
    /usr/include/bpf/bpf_helpers.h:libbpf-dev
    /usr/include/linux/bpf.h:linux-libc-dev
    "/usr/lib/*/libbpf.so.1:libbpf1"
)
readonly SHIP_NEEDS=(
    strip:binutils
    patchelf:patchelf
    dpkg-buildpackage:dpkg-dev
    dh:debhelper
)
readonly TEST_NEEDS=(
    git:git
    curl:curl
    chromium:chromium
    dig:bind9-dnsutils
    dnsmasq:dnsmasq-base
    openssl:openssl
    faketime:faketime
    iperf3:iperf3
    nfcapd:nfdump
    # promtool is in no package of its own.
    promtool:prometheus
    rsyslogd:rsyslog
    "/usr/lib/*/rsyslog/lmnsd_ossl.so:rsyslog-openssl"
    shellcheck:shellcheck
    groff:groff-base
    h2load:nghttp2-client
    lintian:lintian
    nginx:nginx
    mmdebstrap:mmdebstrap
    tshark:tshark
    bpftool:bpftool
    /usr/lib/python3/dist-packages/bcc/__init__.py:python3-bpfcc
    sshd:openssh-server
    systemd-nspawn:systemd-container
    wrk:wrk
)
readonly BENCH_NEEDS=(
    ethtool:ethtool
    h2load:nghttp2-client
    haproxy:haproxy
    nft:nftables
    nginx:nginx
    "/usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream"
    squid:squid
    tinyproxy:tinyproxy
    xdp-filter:xdp-tools
)

# A contender whose libraries are of other versions than ours.
require_mitmproxy() {
    local folder=build/mitmproxy state
    state=$(sha256sum <requirements-mitmproxy.lock)
    [[ ! -e $folder/.complete || $(<"$folder/.complete") != "$state" ]] || return 0
    step "Installing mitmproxy into $folder"
    rm -rf "$folder"
    .venv/bin/python -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-mitmproxy.lock ||
        fail "mitmproxy could not be installed"
    printf '%s' "$state" >"$folder/.complete"
}

# The kernel programs; make knows what is out of date.
require_objects() {
    ! make --question --silent -C marchproxy/bpf 2>/dev/null || return 0
    step "Compiling the kernel programs"
    make --silent -C marchproxy/bpf ||
        fail "the kernel programs do not compile" "The compiler's messages stand above."
}

prepare() {
    local lock=requirements.lock needs=("${RUN_NEEDS[@]}")
    case $1 in
        run) ;;
        ship) needs+=("${SHIP_NEEDS[@]}") ;;
        test) lock=requirements-dev.lock needs+=("${SHIP_NEEDS[@]}" "${TEST_NEEDS[@]}") ;;
        bench) lock=requirements-bench.lock needs+=("${SHIP_NEEDS[@]}" "${TEST_NEEDS[@]}" "${BENCH_NEEDS[@]}") ;;
        *)
            printf 'usage: scripts/setup.sh [run|ship|test|bench]\n' >&2
            exit 2
            ;;
    esac
    # One at a time: two targets of one make may both come here first.
    exec {turn}<scripts/setup.sh
    flock "$turn"
    require_packages "${needs[@]}"
    require_environment
    require_locked "$lock"
    [[ $1 == run ]] || require_wheels
    [[ $1 != bench ]] || require_mitmproxy
    require_objects
    exec {turn}<&-
}

# Sourced by its tests, run by everybody else.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    prepare "${1:-run}"
fi
