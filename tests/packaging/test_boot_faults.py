"""The Debian package in real systems whose service is disturbed, or lacks something."""

import shlex
import socket
import threading

import pytest

from marchproxy import bpf
from rig import Rig, wait_for
from rig.traffic import ask_udp, fetch
from tests.packaging.booted import (
    DEFINE,
    HANDED_OFF,
    MARKS,
    PID,
    PYTHON,
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


def test_a_store_that_check_refuses_is_not_reloaded(rig: Rig, defined: Box) -> None:
    """Not even in part: the old policy holds until the store is in order, and then the new one does."""

    def is_allowed() -> bool:
        try:
            return b"server" in rig.client.call(fetch, VIP, 81)
        except ConnectionRefusedError:
            return False

    def old_policy_holds() -> bool:
        return not is_allowed() and rig.client.call(ask_udp, VIP, 7007, b"hello") == b"hello"

    before = defined.ok(PID)
    # A command that finds no daemon, and so tells none.
    defined.ok("MARCHPROXY_RUNTIME_DIR=/srv marchproxy mapping set not --action allow")
    defined.ok(f"{PYTHON} /files/change_mapping.py echo nobody")
    assert old_policy_holds()
    refused = defined.run("systemctl reload marchproxy")
    assert refused.returncode != 0
    assert "names service nobody, which does not exist" in defined.journal()
    assert defined.ok("systemctl is-active marchproxy") == "active"
    assert defined.ok(PID) == before
    assert old_policy_holds()
    defined.ok(f"{PYTHON} /files/change_mapping.py echo echo")
    defined.ok("systemctl reload marchproxy")
    assert defined.ok(PID) == before
    wait_for(is_allowed, "the new policy")


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
    ("without", "wanted", "tier", "said"),
    [
        ("umount /sys/fs/bpf", "", "sockets", f"/run/marchproxy-bpf/v{bpf.ABI} is not on a BPF file system"),
        ("rm /usr/lib/*/libbpf.so.1*", "", "kernel", ""),
        (
            "rm -f /usr/lib/*/libbpf.so.1* /usr/lib/marchproxy/lib/fallback/*",
            "",
            "sockets",
            "libbpf.so.1 cannot be loaded",
        ),
        (lacking("CAP_BPF"), "", "sockets", "BPF cannot be used: not permitted: CAP_BPF missing"),
        (lacking("CAP_NET_ADMIN"), "", "sockets", "BPF cannot be used: not permitted: CAP_NET_ADMIN missing"),
        (lacking("CAP_PERFMON"), "", "sockets", "BPF cannot be used: not permitted: CAP_PERFMON missing"),
        (
            lacking("CAP_NET_BIND_SERVICE"),
            "marchproxy listener add explicit --bind 10.1.0.1:443",
            "kernel",
            "10.1.0.1:443/tcp: this user may not open it: ports below 1024 need CAP_NET_BIND_SERVICE",
        ),
        # Who has to ping is defined already.
        (lacking("CAP_NET_RAW"), "", "kernel", "health: icmp checks need CAP_NET_RAW, or "),
    ],
    ids=["bpffs", "libbpf", "no-libbpf", "bpf", "net-admin", "perfmon", "bind", "raw"],
)
def test_what_is_missing_is_named_and_ends_in_no_loop(
    rig: Rig, installed: Box, without: str, wanted: str, tier: str, said: str
) -> None:
    """Both to whoever asks and to whoever reads what was said."""
    installed.ok(without)
    installed.ok(DEFINE)
    installed.run(wanted)
    shown = f"tier {tier}: {said if tier == 'sockets' else 'BPF is permitted'}"
    assert installed.ok("marchproxy status | grep ^tier").startswith(shown)
    quoted = shlex.quote(said)
    installed.until(f"marchproxy status | grep -F {quoted}")
    installed.until(f"journalctl --unit=marchproxy --identifier=marchproxy | grep -F {quoted}")
    assert installed.ok("systemctl show --property=NRestarts --value marchproxy") == "0"
    # It goes on doing what it can.
    assert rig.client.call(ask_udp, VIP, 7007, b"hello") == b"hello"
