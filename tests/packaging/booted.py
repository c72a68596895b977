"""What the tests share whose systems boot: names, what is defined in the appliance, talk through it."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from marchproxy.version import VERSION
from rig import Rig
from rig.traffic import Talk
from tests.packaging.box import Box

MARKS = [
    pytest.mark.requires(
        "root", "netns", "veth", "bpf", "bpffs", "tcx", commands=["systemd-nspawn", "dpkg-deb"]
    ),
    # The first one builds the package, and the root of each release.
    pytest.mark.timeout(900),
]
"""Of each module of them."""
SUITES = ["bookworm", "trixie"]
VIP = "10.1.0.1"
INSTALL = "apt-get install -y /files/this.deb"
NEWER = f"{VERSION}.1"
DEFINE = """\
marchproxy init --output json >/srv/key
systemctl start marchproxy
marchproxy interface add inside0 --role inside
marchproxy interface add outside0 --role outside
marchproxy service add clients --address 10.1.0.0/24
marchproxy service add web --address 10.2.0.2 --port 80 --health icmp
marchproxy service add echo --address 10.2.0.2 --port 7
marchproxy mapping add web --from clients --to web --protocol tcp --listen 10.1.0.1:80
marchproxy mapping add echo --from clients --to echo --protocol tcp,udp --listen 10.1.0.1:7007
marchproxy mapping add not --from clients --to web --protocol tcp --listen 10.1.0.1:81 --action deny
"""
TUNNELS = """\
marchproxy listener add explicit --bind 10.1.0.1:3128
marchproxy mapping add out --from clients --to echo --protocol tcp --ports 7
"""
"""Commands that open the explicit proxy for tunnels to the echo."""
HANDED_OFF = "marchproxy flows --output json --limit 5000 --reason HANDED_OFF | grep -c HANDED_OFF"
"""A command that says how many tunnels the kernel carries."""
PID = "systemctl show --property=MainPID --value marchproxy"
CAPABILITIES = {"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW"}
PYTHON = "/usr/lib/marchproxy/bin/python3.* -I"
CONSOLE = """\
import fcntl, os, pty, struct, termios, time
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
with open("/srv/console", "w") as name, open("/srv/screen", "wb", buffering=0) as screen:
    print(os.ttyname(slave).removeprefix("/dev/"), file=name, flush=True)
    while True:
        try:
            screen.write(os.read(master, 65536))
        except OSError:
            time.sleep(0.05)
"""
"""A terminal that nobody sits at, and what is drawn on it."""
NEWER_STORE = """\
import sqlite3
store = sqlite3.connect("/var/lib/marchproxy/marchproxy.db")
row = (9999, "of_the_future", "2030-01-01 00:00:00")
store.execute("INSERT INTO migration (number, name, time) VALUES (?, ?, ?)", row)
store.commit()
"""
CHANGE_MAPPING = """\
import json, sqlite3, sys
mapping, *services = sys.argv[1:]
store = sqlite3.connect("/var/lib/marchproxy/marchproxy.db")
values = (json.dumps(services), mapping)
changed = store.execute("UPDATE mapping SET destinations = ? WHERE name = ?", values)
assert changed.rowcount == 1, mapping
store.commit()
"""
"""What a mapping leads to, as no command would change it: services need not exist."""


def drop_in(*lines: str) -> str:
    """A command that adds lines to the unit."""
    folder, text = "/run/systemd/system/marchproxy.service.d", "\\n".join(["[Service]", *lines, ""])
    return f"mkdir -p {folder} && printf '{text}' >{folder}/more.conf && systemctl daemon-reload"


def lacking(capability: str) -> str:
    """A command that takes one capability from the unit."""
    left = " ".join(sorted(CAPABILITIES - {capability}))
    return drop_in("AmbientCapabilities=", f"AmbientCapabilities={left}")


def while_talking(rig: Rig, disturb: Callable[[], object]) -> None:
    """Talk through the appliance on one connection all the time, and see every answer come."""
    begun, over, failures = threading.Event(), threading.Event(), list[BaseException]()

    def talk() -> None:
        with Talk(VIP, 7007) as kept:
            while not over.wait(0.001):
                assert kept.say(b"still here") == b"still here"
                begun.set()

    def watched() -> None:
        try:
            rig.client.call(talk)
        except BaseException as error:
            failures.append(error)
        begun.set()

    thread = threading.Thread(target=watched)
    thread.start()
    begun.wait(10)
    try:
        disturb()
    finally:
        over.set()
        thread.join(10)
    assert failures == []


def conversations(box: Box) -> dict[int, dict[str, Any]]:
    """What is carried, by its id."""
    rows = json.loads(box.ok("marchproxy flows --output json --limit 5000"))
    return {row["id"]: row for row in rows if row["source"] == "10.1.0.2"}


def assert_counted_on(before: dict[int, dict[str, Any]], after: dict[int, dict[str, Any]]) -> None:
    """What was carried still is, and its counters have gone on from where they were."""
    assert after.keys() >= before.keys()
    for number, row in before.items():
        assert after[number]["started"] == row["started"]
        assert after[number]["packets_sent"] > row["packets_sent"]
        assert after[number]["packets_received"] > row["packets_received"]
