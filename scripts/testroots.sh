#!/usr/bin/env bash
# Makes the minimal Debian and Ubuntu systems in which the tests of the package boot: once for each release, in a folder that
# outlives the checkout, because each takes half a minute and a mirror. Without root or a mirror there are none, and those tests
# say so. Debian 12 has no package of Ubuntu's keys: they come from Ubuntu, as the package that has this hash.
set -euo pipefail

readonly ROOTS=${MARCHPROXY_TEST_ROOTS:-/var/tmp/marchproxy-test-roots}
readonly SUITES=(bookworm trixie)
readonly UBUNTU_SUITES=(jammy noble)
readonly UBUNTU=http://archive.ubuntu.com/ubuntu
readonly KEYRING=pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb
readonly KEYRING_SHA256=36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8
readonly KEYS=usr/share/keyrings/ubuntu-archive-keyring.gpg
readonly INCLUDED=apt,bash,systemd,systemd-sysv,dbus,iproute2,procps

# make_root SUITE [SOURCE]
make_root() {
    local draft=$ROOTS/.$1.new
    printf '==> Making a %s to boot in tests, in %s\n' "$1" "$ROOTS"
    rm -rf --one-file-system "$draft"
    # Loading modules is the machine's, and nothing that a container can do.
    # shellcheck disable=SC2016  # $1 is mmdebstrap's
    if mmdebstrap --quiet --variant=minbase --include="$INCLUDED" --dpkgopt=force-unsafe-io \
        --customize-hook='ln -sf /dev/null "$1"/etc/systemd/system/systemd-modules-load.service' "$1" "$draft" "${@:2}"; then
        mv "$draft" "$ROOTS/$1"
    else
        printf '    mmdebstrap could not make it; tests that need it are skipped\n' >&2
        rm -rf --one-file-system "$draft"
    fi
}

# The file with Ubuntu's keys: the machine's, or the one that is fetched once.
ubuntu_keys() {
    local kept=$ROOTS/.ubuntu-keys
    if [[ -e /$KEYS ]]; then
        printf '/%s\n' "$KEYS"
        return 0
    fi
    if [[ ! -e $kept/$KEYS ]]; then
        rm -rf "$kept.new"
        mkdir "$kept.new"
        curl -fsS --retry 2 --max-time 60 -o "$kept.new/package" "$UBUNTU/$KEYRING" >&2 || return 1
        sha256sum --check --quiet <<<"$KEYRING_SHA256  $kept.new/package" >&2 || return 1
        dpkg-deb -x "$kept.new/package" "$kept.new" || return 1
        rm -rf "$kept"
        mv "$kept.new" "$kept"
    fi
    printf '%s/%s\n' "$kept" "$KEYS"
}

[[ $(id -u) == 0 ]] || exit 0
mkdir -p "$ROOTS"
exec {turn}<"$ROOTS"
flock "$turn"
for suite in "${SUITES[@]}"; do
    [[ -d $ROOTS/$suite ]] || make_root "$suite"
done
for suite in "${UBUNTU_SUITES[@]}"; do
    [[ ! -d $ROOTS/$suite ]] || continue
    if ! keys=$(ubuntu_keys); then
        printf "    Ubuntu's keys cannot be had; tests that need a root of Ubuntu are skipped\n" >&2
        break
    fi
    make_root "$suite" "deb [signed-by=$keys] $UBUNTU $suite main"
done
