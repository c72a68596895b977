# shellcheck shell=bash
# Installing system packages without starting services by it. Sourced by setup.sh.

# What Debian would start now and at every boot: the service, and after a colon the package where that has another name.
readonly SERVICES=(haproxy iperf3 nfdump nftables nginx prometheus rsyslog squid ssh:openssh-server tinyproxy)
# What dpkg asks before it starts a service.
POLICY=/usr/sbin/policy-rc.d

is_root() { [[ $(id -u) == 0 ]]; }

# require_packages NEED...: installs what is missing, or says how to. A need is a command or a file (patterns allowed), a
# colon, and the package that brings it. Looking for the thing rather than for the package accepts what was installed by
# hand, and asks no database.
require_packages() {
    local need thing missing=()
    for need; do
        thing=${need%:*}
        [[ $thing == /* ]] && compgen -G "$thing" >/dev/null && continue
        [[ $thing != /* ]] && command -v "$thing" >/dev/null && continue
        missing+=("${need##*:}")
    done
    ((${#missing[@]} == 0)) || install_packages "${missing[@]}"
}

install_packages() {
    command -v apt-get >/dev/null ||
        fail "missing: $*" "There is no apt-get here: install what your distribution calls these Debian packages."
    is_root ||
        fail "missing: $*" "Run: sudo apt-get install --no-install-recommends $*"
    update_package_lists
    step "Installing system packages: $*"
    hold_services
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "$@" ||
        fail "apt-get could not install: $*" "Its message stands above. Correct that, then run the same command again."
    release_services "$@"
}

# Once a run. Lists that cannot be refreshed may still do.
update_package_lists() {
    [[ -z ${LISTS_UPDATED-} ]] || return 0
    LISTS_UPDATED=yes
    step "Updating the package lists"
    apt-get update -qq || note "apt-get update failed; going on with the lists that are here"
}

# What a test needs must not become a listening service of the machine: nothing starts during the installation (101:
# forbidden by policy) and nothing is left enabled after it. A policy that is already there is the machine's own.
hold_services() {
    [[ ! -e $POLICY ]] || return 0
    trap 'rm -f "$POLICY"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
}

# release_services PACKAGE...: only the services of packages that were installed just now.
release_services() {
    if [[ -n $(trap -p EXIT) ]]; then
        rm -f "$POLICY"
        trap - EXIT
    fi
    command -v systemctl >/dev/null || return 0
    local entry service
    for entry in "${SERVICES[@]}"; do
        [[ " $* " == *" ${entry##*:} "* ]] || continue
        service=${entry%:*}
        # Where systemd does not run, there is nothing to stop and disabling still removes the links.
        systemctl disable --quiet "$service" 2>/dev/null || true
        systemctl stop --quiet "$service" 2>/dev/null || true
    done
}
