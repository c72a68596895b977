"""After so many packets and bytes flows, status, metrics, client and server say the same number, exactly."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rig import Appliance, Rig, wait_for
from rig.traffic import fetch

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")

EXCHANGES, ASKED, ANSWERED = 60, 120, 330
"""Each message is small enough for one segment, and waits for the answer to the one before."""
HEADERS, SYN = 20 + 32, 20 + 40
"""Bytes of IPv4 and TCP with timestamps, and of a segment that opens a connection."""
REFUSED = 17
UDP_HEADERS = 20 + 8


@dataclass(frozen=True, slots=True)
class Counted:
    """What a host's kernel has counted for one of its connections (`tcp_info` of linux/tcp.h, kernel 4.2)."""

    sent: int
    received: int

    @classmethod
    def by_client(cls, sock: socket.socket) -> "Counted":
        return cls(*struct.unpack_from("=II", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 136))

    @classmethod
    def by_server(cls, sock: socket.socket) -> "Counted":
        """As the client has to see it. The SYN-ACK was sent before there was this socket."""
        there = cls.by_client(sock)
        return cls(there.received, there.sent + 1)


@pytest.fixture(scope="module", params=["tc", "xdp"])
def appliance(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Appliance]:
    """Where XDP is the mode, frames are single segments, and it carries them without TC."""
    with Appliance(rig, name=f"counts-{request.param}") as built:
        built.cli("init")
        for name, role in (("inside0", "inside"), ("outside0", "outside")):
            built.cli("interface", "add", name, "--role", role, "--mode", str(request.param))
        built.cli("service", "add", "lan", "--address", "10.1.0.0/24")
        built.cli("service", "add", "far", "--address", "10.2.0.2", "--port", "7001")
        words = ("--from", "lan", "--to", "far", "--protocol", "tcp", "--listen", "10.1.0.1:7000")
        built.cli("mapping", "add", "counted", *words)
        built.start()
        yield built


@pytest.fixture
def ends(rig: Rig, appliance: Appliance) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection through the appliance."""
    with rig.server.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("10.2.0.2", 7001))
        listening.listen()
        client = rig.client.call(socket.create_connection, ("10.1.0.1", 7000), 10)
        server, _ = listening.accept()
        with client, server:
            yield client, server


def exchange(client: socket.socket, server: socket.socket) -> None:
    for sock in (client, server):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(10)
    for _ in range(EXCHANGES):
        client.sendall(bytes(ASKED))
        assert len(server.recv(ASKED, socket.MSG_WAITALL)) == ASKED
        server.sendall(bytes(ANSWERED))
        assert len(client.recv(ANSWERED, socket.MSG_WAITALL)) == ANSWERED


def status_of(appliance: Appliance, reason: str) -> dict[str, int]:
    empty = {"packets": 0, "bytes": 0}
    return dict(appliance.json("status", check=False)["counters"].get(reason, empty))


def metrics_of(appliance: Appliance, reason: str) -> dict[str, int]:
    text = appliance.host.call(fetch, "127.0.0.1", 9090, "/metrics").decode()
    found = {"packets": 0, "bytes": 0}
    for family in text_string_to_metric_families(text):
        what = family.name.removeprefix("marchproxy_")
        if what in found:
            wanted = [each for each in family.samples if each.labels["reason"] == reason]
            found[what] = int(sum(each.value for each in wanted))
    return found


def difference(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in after}


def test_tcp(appliance: Appliance, ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    # The first packets of this connection are among them, and those of the last one of this module are not.
    port = client.getsockname()[1]
    exchange(client, server)

    def flow() -> dict[str, Any]:
        (row,) = appliance.json("flows", "--port", str(port))
        return dict(row)

    def settled() -> dict[str, Any] | None:
        """The last acknowledgement may wait for 40 ms."""
        row = flow()
        carried = Counted(row["packets_sent"], row["packets_received"])
        return row if carried == Counted.by_client(client) == Counted.by_server(server) else None

    row = wait_for(settled, "both ends and the appliance to count the same")
    packets = row["packets_sent"], row["packets_received"]
    assert row["bytes_sent"] == SYN + HEADERS * (packets[0] - 1) + EXCHANGES * ASKED
    assert row["bytes_received"] == SYN + HEADERS * (packets[1] - 1) + EXCHANGES * ANSWERED
    (top,) = [each for each in appliance.json("top", "--by", "mapping")["rows"] if each["name"] == "counted"]
    assert top["packets"] >= sum(packets)


def _settled(read: Callable[[], list[dict[str, int]]]) -> list[dict[str, int]] | None:
    """What is read where all agree, and go on to do so for longer than counters may be old."""
    found = read()
    time.sleep(0.5)
    return found if found[0] == found[1] and read() == found else None


def test_status_and_metrics(appliance: Appliance, ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends

    def both() -> list[dict[str, int]]:
        return [status_of(appliance, "FORWARDED"), metrics_of(appliance, "FORWARDED")]

    def counted() -> int | None:
        """By the client, where the server has counted the same."""
        there = Counted.by_client(client)
        return there.sent + there.received if there == Counted.by_server(server) else None

    exchange(client, server)
    before = wait_for(lambda: _settled(both), "what is counted four times a second")
    # The last acknowledgement, which may be late, is among both by now.
    first = wait_for(counted, "all acknowledgements")
    exchange(client, server)

    def told() -> tuple[list[dict[str, int]], int] | None:
        packets = (counted() or 0) - first
        seen = [difference(after, earlier) for after, earlier in zip(both(), before, strict=True)]
        return (seen, packets) if {each["packets"] for each in seen} == {packets} else None

    seen, packets = wait_for(told, "the counters to be those of both ends")
    expected = packets * HEADERS + EXCHANGES * (ASKED + ANSWERED)
    assert seen == [{"packets": packets, "bytes": expected}] * 2


def test_refusals(rig: Rig, appliance: Appliance) -> None:
    def refused() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for _ in range(REFUSED):
                client.sendto(bytes(40), ("10.2.0.2", 9999))

    before = status_of(appliance, "NO_MAPPING"), metrics_of(appliance, "NO_MAPPING")
    rig.client.call(refused)
    expected = {"packets": REFUSED, "bytes": REFUSED * (40 + UDP_HEADERS)}

    def told() -> bool:
        now = status_of(appliance, "NO_MAPPING"), metrics_of(appliance, "NO_MAPPING")
        return [difference(*pair) for pair in zip(now, before, strict=True)] == [expected] * 2

    wait_for(told, "the refusals to be counted")
