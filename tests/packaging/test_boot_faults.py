"""The Debian package in real systems whose service is disturbed, or lacks something."""

import socket
import threading

import pytest

from marchproxy import bpf
from rig import Rig
from rig.traffic import ask_udp
from tests.packaging.booted import (
    DEFINE,
    HANDED_OFF,
    MARKS,
    PID,
    SUITES,
    TUNNELS,
    VIP,
    assert_counted_on,
    conversations,
    drop_in,
    lacking,
    while_talking,
)
from tests.packaging.box import Box
from tests.packaging.load import Load, retransmitted

pytestmark = MARKS


def test_reload_restart_and_a_watchdog_leave_flows_alone(rig: Rig, defined: Box) -> None:
    def disturb() -> None:
        before = defined.ok(PID)
        defined.ok("systemctl reload marchproxy")
        assert defined.ok(PID) == before
        defined.ok("systemctl restart marchproxy")
        defined.ok(f"{drop_in('WatchdogSec=6')} && systemctl restart marchproxy")
        hung = defined.ok(PID)
        defined.ok(f"kill -STOP {hung}")
        defined.until(f"[ $({PID}) != {hung} ] && systemctl is-active marchproxy && marchproxy status")
        assert "Watchdog timeout" in defined.journal()

    while_talking(rig, disturb)


def test_killed_under_load_it_comes_back_and_nothing_is_lost(rig: Rig, defined: Box) -> None:
    """All of its processes at once: what is in the kernel goes on, is taken over, and counted on."""
    defined.ok(TUNNELS)
    load = Load(rig.client, (VIP, 7007), (VIP, 3128), "10.2.0.2:7")
    try:
        load.open()
        with load:
            defined.until(f'[ "$({HANDED_OFF})" -ge {load.tunnels} ]')
            before, rounds, killed = conversations(defined), load.rounds, defined.ok(PID)
            defined.ok("systemctl kill -s KILL marchproxy")
            defined.until(f"[ $({PID}) != {killed} ] && systemctl is-active marchproxy && marchproxy status")
            back = load.rounds
            after = conversations(defined)
        assert load.failures == []
        assert rounds < back < load.rounds
        print(f"{len(before)} conversations, {load.rounds} rounds, {load.retransmitted} segments sent again")
    finally:
        load.close()
    assert "code=killed, status=9/KILL" in defined.journal()
    assert defined.ok("systemctl show --property=NRestarts --value marchproxy") == "1"
    assert len(before) == load.flows + load.tunnels + load.datagrams
    assert_counted_on(before, after)


def test_who_connects_during_a_restart_waits(rig: Rig, defined: Box) -> None:
    """systemd holds the listening sockets of those whom the daemon has to hear first."""
    defined.ok("marchproxy listener add explicit --bind 10.1.0.1:3128")
    over, refused, again = threading.Event(), list[OSError](), list[int]()

    def knock() -> None:
        while not over.wait(0.02):
            try:
                with socket.create_connection((VIP, 3128), timeout=60) as sock:
                    again.append(retransmitted(sock))
            except OSError as error:
                refused.append(error)

    thread = threading.Thread(target=lambda: rig.client.call(knock))
    thread.start()
    try:
        defined.ok("systemctl restart marchproxy && systemctl restart marchproxy")
    finally:
        over.set()
        thread.join(70)
    assert refused == []
    # Nobody had to ask twice, either: the kernel answers for a socket that is held.
    assert set(again) == {0}
    assert len(again) > 10


@pytest.mark.parametrize("box", SUITES[:1], indirect=True)
@pytest.mark.parametrize(
    ("without", "tier"),
    [
        ("umount /sys/fs/bpf", f"tier sockets: /run/marchproxy-bpf/v{bpf.ABI} is not on a BPF file system"),
        ("rm /usr/lib/*/libbpf.so.1*", "tier kernel: BPF is permitted"),
        (
            "rm -f /usr/lib/*/libbpf.so.1* /usr/lib/marchproxy/lib/fallback/*",
            "tier sockets: libbpf.so.1 cannot be loaded",
        ),
        (lacking("CAP_BPF"), "tier sockets: BPF cannot be used: not permitted: CAP_BPF missing"),
        (lacking("CAP_NET_ADMIN"), "tier sockets: "),
        (lacking("CAP_PERFMON"), "tier sockets: "),
        (lacking("CAP_NET_BIND_SERVICE"), "tier kernel: BPF is permitted"),
        (lacking("CAP_NET_RAW"), "tier kernel: BPF is permitted"),
    ],
    ids=["bpffs", "libbpf", "no-libbpf", "bpf", "net-admin", "perfmon", "bind", "raw"],
)
def test_what_is_missing_is_named_and_ends_in_no_loop(
    rig: Rig, installed: Box, without: str, tier: str
) -> None:
    installed.ok(without)
    installed.ok(DEFINE)
    assert installed.ok("marchproxy status | grep ^tier").startswith(tier)
    assert installed.ok("systemctl show --property=NRestarts --value marchproxy") == "0"
    # It goes on doing what it can.
    assert rig.client.call(ask_udp, VIP, 7007, b"hello") == b"hello"
