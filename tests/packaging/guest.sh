#!/bin/bash
# What happens in the machine that test_kernel.py boots: first boot as an operator would have it, clients and servers in
# namespaces, and each finding on the serial console under a heading. The machine ends with it.
exec >/dev/ttyS0 2>&1
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 NO_COLOR=1 DEBIAN_FRONTEND=noninteractive
trap 'echo "== end"; systemctl poweroff --force --force' EXIT

heading() { printf '== %s\n' "$*"; }
# fetch ADDR: what the client gets from there.
fetch() { ip netns exec client "$PYTHON" -I /srv/fetch.py "$1"; }
# until WORDS...: again until it succeeds; emulated machines are slow.
until_ok() { for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return; sleep 1; done; }

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
mkdir -p /srv/www && echo 'it is the server' >/srv/www/index.html
ip netns exec server "$PYTHON" -I -m http.server --directory /srv/www 80 >/dev/null 2>&1 &
until_ok ip netns exec server "$PYTHON" -I /srv/fetch.py 10.2.0.2
heading wizard
echo 10.2.0.77 >/srv/bad.txt
printf '%s\n' inside0 outside0 no /srv/bad.txt 22 yes | marchproxy init --wizard
until_ok systemctl is-active --quiet marchproxy
heading status
marchproxy status
marchproxy doctor
heading denied
marchproxy appliance set --audit off
fetch 10.2.0.2
heading routed
marchproxy service add clients --address 10.1.0.0/24
marchproxy service add web --address 10.2.0.2 --port 80
marchproxy mapping add routed --from clients --to web --protocol tcp
fetch 10.2.0.2
heading listener
marchproxy mapping add web --from clients --to web --protocol tcp --listen 10.1.0.1:80
fetch 10.1.0.1
heading explained
marchproxy explain --from 10.1.0.2 --to 10.2.0.2 --protocol tcp --port 81
heading restarted
systemctl restart marchproxy
fetch 10.1.0.1
heading attached
marchproxy status --output json | "$PYTHON" -I -c 'import json, sys; print(*(each["attached"] for each in json.load(sys.stdin)["interfaces"]))'
heading restarts
systemctl show --property=NRestarts --value marchproxy
heading journal
journalctl --unit marchproxy --no-pager --output=cat | tail -n 40
heading purge
apt-get purge -y marchproxy >/dev/null 2>&1
ls -A /sys/fs/bpf
