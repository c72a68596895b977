#!/bin/bash
# What the machines that test_kernel.py boots have in common: a network of namespaces, the package installed, and each finding on
# the serial console under a heading. The machine ends with the script that sources this.
exec >/dev/ttyS0 2>&1
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 NO_COLOR=1 DEBIAN_FRONTEND=noninteractive
trap 'echo "== end"; systemctl poweroff --force --force' EXIT

heading() { printf '== %s\n' "$*"; }
# in_side SIDE WORDS...: the client or the server does something, see ends.py.
in_side() { ip netns exec "$1" "$PYTHON" -I /srv/guest/ends.py "${@:2}"; }
# fetch ADDR[:PORT]: what the client gets from there.
fetch() { in_side client fetch "$1"; }
# until_ok WORDS...: again until it succeeds; emulated machines are slow.
until_ok() { for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return; sleep 1; done; }
# of_status EXPRESSION: of `status --output json`, which is the document `it`.
of_status() {
    marchproxy status --output json | "$PYTHON" -I -c "import json, sys; it = json.load(sys.stdin); print($1)"
}
# apply MODE: what is allowed, by interfaces of that mode.
apply() { sed "s/MODE/$1/" /srv/guest/policy.yaml | marchproxy apply -f - --yes; }
journal() { journalctl --unit marchproxy --no-pager --output=cat | tail -n 60; }

network() {
    local name side near far
    for name in client:inside0:10.1.0 server:outside0:10.2.0; do
        IFS=: read -r side near far <<<"$name"
        ip netns add "$side"
        ip -n "$side" link set lo up
        ip link add "$near" type veth peer name eth0 netns "$side"
        ip addr add "$far.1/24" dev "$near"
        ip link set "$near" up
        ip -n "$side" addr add "$far.2/24" dev eth0
        ip -n "$side" link set eth0 up
        ip -n "$side" route add default via "$far.1"
        in_side "$side" suit
    done
}

heading kernel
uname -r
# Two emulated processors verify for a minute, and what the unit waits for is meant for real ones.
mkdir -p /etc/systemd/system/marchproxy.service.d
printf '[Service]\nTimeoutStartSec=900\nWatchdogSec=0\n' >/etc/systemd/system/marchproxy.service.d/slow.conf
heading install
apt-get install -y /srv/this.deb >/srv/apt.log 2>&1 || cat /srv/apt.log
marchproxy --version
PYTHON=$(compgen -G '/usr/lib/marchproxy/bin/python3.*')
network
in_side server serve >/dev/null 2>&1 &
until_ok in_side server fetch 10.2.0.2
until_ok in_side server fetch 10.2.0.2:81
heading wizard
echo 10.2.0.77 >/srv/bad.txt
printf '%s\n' inside0 outside0 no /srv/bad.txt 22 yes | marchproxy init --wizard
until_ok systemctl is-active --quiet marchproxy
heading apply
apply auto || exit
