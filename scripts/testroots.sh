#!/usr/bin/env bash
# Makes the minimal Debian and Ubuntu systems in which the tests of the package boot: once for each release, in a folder that
# outlives the checkout, because each takes half a minute and a mirror. Without root or a mirror there are none, and those tests
# say so; without Ubuntu's keys (package ubuntu-archive-keyring) there are none of Ubuntu.
set -euo pipefail

readonly ROOTS=${MARCHPROXY_TEST_ROOTS:-/var/tmp/marchproxy-test-roots}
readonly SUITES=(bookworm trixie)
readonly UBUNTU_SUITES=(jammy noble)
readonly UBUNTU=http://archive.ubuntu.com/ubuntu UBUNTU_KEYS=/usr/share/keyrings/ubuntu-archive-keyring.gpg
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

[[ $(id -u) == 0 ]] || exit 0
mkdir -p "$ROOTS"
exec {turn}<"$ROOTS"
flock "$turn"
for suite in "${SUITES[@]}"; do
    [[ -d $ROOTS/$suite ]] || make_root "$suite"
done
[[ -e $UBUNTU_KEYS ]] || exit 0
for suite in "${UBUNTU_SUITES[@]}"; do
    [[ -d $ROOTS/$suite ]] || make_root "$suite" "deb [signed-by=$UBUNTU_KEYS] $UBUNTU $suite main"
done
