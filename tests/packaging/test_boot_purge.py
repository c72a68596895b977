"""The Debian package in real systems: what is left of it once it is removed, and once it is purged."""

import ctypes
import json
import os
import socket

from marchproxy.dataplane.kernel.libbpf import TCX_INGRESS, library
from rig import Rig
from tests.packaging.booted import DEFINE, INSTALL, MARKS
from tests.packaging.box import Box

pytestmark = MARKS

DIVERT = "marchproxy mapping add named --from clients --to web --protocol tcp --ports 443 --sni"
"""A command after which connections in transit come to a socket: by a rule, and a route of its own."""
TCX_EGRESS = TCX_INGRESS + 1
SK_LOOKUP = 36
"""`BPF_SK_LOOKUP` (linux/bpf.h)."""
CHANGED = {"rule", "-6 rule", "route show table all", "-6 route show table all", "programs", "sysctls"}
"""What the appliance changes at least, and so has to change back."""
NAMED = "find / -xdev -iname '*marchproxy*'"


def attached() -> list[str]:
    """The TC programs of all interfaces of this network namespace, and its own, as the kernel counts them."""
    found = []
    for index, name in socket.if_nameindex():
        found += [f"tc {name}" for kind in (TCX_INGRESS, TCX_EGRESS) for _ in range(programs(index, kind))]
    namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        found += ["sk_lookup"] * programs(namespace, SK_LOOKUP)
    finally:
        os.close(namespace)
    return found


def programs(target: int, kind: int) -> int:
    """How many programs of a kind there are at an interface or in a namespace."""
    count = ctypes.c_uint32(0)
    assert library().bpf_prog_query(target, kind, 0, None, None, ctypes.byref(count)) == 0
    return count.value


def network(rig: Rig, box: Box) -> dict[str, object]:
    """What a box's network is set to; programs are looked for from outside, where nothing hides them."""
    # `link` names XDP programs, too.
    shown = ("rule", "-6 rule", "route show table all", "-6 route show table all", "address", "link")
    state: dict[str, object] = {words: box.ok(f"ip {words}").splitlines() for words in shown}
    state["qdisc"] = box.ok("tc qdisc show").splitlines()
    state["programs"] = rig.middle.call(attached)
    # That of Debian 12 does not know of every kind.
    state["bpftool"] = json.loads(rig.middle.run(["bpftool", "--json", "net"]).stdout)
    state["sysctls"] = box.ok("sysctl --all --pattern '^net[.]' 2>/dev/null").splitlines()
    return state


def test_removed_it_leaves_only_the_state_and_purged_nothing(rig: Rig, box: Box) -> None:
    # Boxes before this one have left it on.
    for name in ("inside0", "outside0"):
        rig.middle.sysctl({f"net.ipv{family}.conf.{name}.forwarding": "0" for family in (4, 6)})
    before = network(rig, box)
    assert before["programs"] == []
    assert [line.partition(":")[0] for line in box.ok("ip rule").splitlines()] == ["0", "32766", "32767"]
    box.ok(INSTALL)
    box.ok(DEFINE)
    box.ok(DIVERT)
    # All that has to go has been there.
    box.until("ip rule | grep -q 'lookup 19792'")
    installed = network(rig, box)
    assert {kind for kind in before if installed[kind] != before[kind]} >= CHANGED
    box.ok("apt-get remove -y marchproxy")
    left = box.ok("ls -A /sys/fs/bpf /usr/lib/marchproxy 2>/dev/null; ls /var/lib/marchproxy /etc/marchproxy")
    assert "marchproxy\n" not in left
    assert "marchproxy.db" in left
    assert "marchproxy.env" in left
    assert network(rig, box) == before
    box.ok(f"{INSTALL} && marchproxy service show web")
    assert "/usr/lib/marchproxy" in box.ok(NAMED).splitlines()
    box.ok("mkdir -p /var/cache/marchproxy && systemctl enable marchproxy-tui@tty7")
    box.ok("systemctl is-active marchproxy && apt-get purge -y marchproxy")
    assert box.ok(NAMED) == ""
    assert "marchproxy" not in box.ok("ls -A /run /sys/fs/bpf")
    assert box.ok("systemctl list-units --failed --no-legend --plain") == ""
    assert network(rig, box) == before
