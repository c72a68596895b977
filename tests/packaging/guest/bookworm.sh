#!/bin/bash
# Kernel 6.1: it carries, by TC and by XDP, what is routed, a listener, and a tunnel that it takes over.
# shellcheck source=tests/packaging/guest/common.sh
. /srv/guest/common.sh

# mode NAME: both interfaces, until programs are attached so.
mode() {
    apply "$1" >/srv/apply.log 2>&1
    until_ok is_attached "$1"
}
is_attached() { [[ $(attached) == "$1 $1" ]]; }
attached() { of_status '*(each["attached"] for each in it["interfaces"])'; }
# Packets that flows carried, and those that XDP left to TC.
counted() { of_status '*(it["counters"].get(name, {}).get("packets", 0) for name in ("FORWARDED", "HANDED_UP"))'; }

heading status
marchproxy status
marchproxy doctor
heading attached
attached
heading denied
fetch 10.2.0.2:81
heading routed
fetch 10.2.0.2
heading listener
fetch 10.1.0.1
heading explained
marchproxy explain --from 10.1.0.2 --to 10.2.0.2 --protocol tcp --port 81
in_side client tunnel /srv/turn >/srv/tunnel.log 2>&1 &
TUNNEL=$!
until_ok test -e /srv/turn.1
# Older than a second, and larger than what is not worth it: the kernel takes it.
is_handed_off() { marchproxy flows --output json | grep -q HANDED_OFF; }
heading tunnel
until_ok is_handed_off
marchproxy flows --output json
touch /srv/turn.go.1
until_ok test -e /srv/turn.2
for name in xdp-generic xdp; do
    mode "$name"
    heading "$name"
    attached
    counted
    fetch 10.2.0.2
    fetch 10.1.0.1
    fetch 10.2.0.2:81
    counted
done
heading tunnel-by-xdp
touch /srv/turn.go.2
wait "$TUNNEL"
cat /srv/tunnel.log
heading restarted
systemctl restart marchproxy
fetch 10.1.0.1
heading restarts
systemctl show --property=NRestarts --value marchproxy
heading journal
journal
heading purge
apt-get purge -y marchproxy >/dev/null 2>&1
ls -A /sys/fs/bpf
