#!/bin/bash
# Kernel 5.15: too old for the programs. Sockets carry what they can, and all say why.
# shellcheck source=tests/packaging/guest/common.sh
. /srv/guest/common.sh

heading status
marchproxy status
heading doctor
marchproxy doctor
heading denied
fetch 10.1.0.1:81
heading routed
fetch 10.2.0.2
heading listener
fetch 10.1.0.1
heading tunnel
touch /srv/turn.go.1 /srv/turn.go.2
in_side client tunnel /srv/turn
heading restarted
systemctl restart marchproxy
fetch 10.1.0.1
heading restarts
systemctl show --property=NRestarts --value marchproxy
heading pins
find /sys/fs/bpf/marchproxy -mindepth 1
heading journal
journal
heading purge
apt-get purge -y marchproxy >/dev/null 2>&1
ls -A /sys/fs/bpf
