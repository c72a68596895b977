"""What goes wrong around a gateway must not be felt by the flows that it carries.

`MARCHPROXY_FLOWS=10000 MARCHPROXY_FLOOD=1000000` makes these tests as large as the appliance is meant for.
"""

import itertools
import os
import random
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from marchproxy.dataplane.kernel.interfaces import link_address
from rig import Appliance, Host, Rig, wait_for
from rig.servers import start_echo
from rig.traffic import TIMEOUT, ask_tcp

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")

FLOWS = int(os.environ.get("MARCHPROXY_FLOWS", "1000"))
FLOOD = int(os.environ.get("MARCHPROXY_FLOOD", "100000"))
_NUMBERS = itertools.count()
REFUSED = (ConnectionRefusedError, ConnectionResetError, TimeoutError)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(servers=2) as built:
        for server in built.servers:
            start_echo(server)
        yield built


@pytest.fixture
def appliance(rig: Rig) -> Iterator[Appliance]:
    """A gateway that masquerades to the first server's network, and lets through to the second's."""
    with Appliance(rig, name=f"faults{next(_NUMBERS)}") as built:
        cli = built.cli
        cli("init")
        cli("interface", "add", "inside0", "--role", "inside")
        cli("interface", "add", "outside0", "--role", "outside", "--masquerade")
        cli("interface", "add", "outside1", "--role", "outside")
        cli("service", "add", "lan", "--address", "10.1.0.0/24")
        for number in (0, 1):
            cli("service", "add", f"net{number}", "--address", f"10.2.{number}.0/24")
            ends = ("--from", "lan", "--to", f"net{number}", "--protocol", "tcp", "--ports", "7")
            cli("mapping", "add", f"to{number}", *ends)
        yield built


class Crowd:
    """Connections of a client that stay open."""

    def __init__(self, host: Host, address: str, count: int) -> None:
        self._sockets = host.call(
            lambda: [socket.create_connection((address, 7), TIMEOUT) for _ in range(count)]
        )

    def speak(self) -> int:
        """How many of them are answered when they all say something."""
        said = [(each, random.randbytes(16)) for each in self._sockets]
        for each, words in said:
            _try(each.sendall, words)
        return sum(_try(each.recv, 16, socket.MSG_WAITALL) == words for each, words in said)

    def flow(self, appliance: Appliance) -> dict[str, Any]:
        """The first connection, as the appliance tells of it."""
        port = self._sockets[0].getsockname()[1]
        rows = appliance.json("flows", "--port", str(port))
        return next(row for row in rows if row["source_port"] == port)

    def close(self) -> None:
        for each in self._sockets:
            each.close()


def _try[R](call: Callable[..., R], *arguments: object) -> R | None:
    try:
        return call(*arguments)
    except OSError:
        return None


def retransmitted(host: Host) -> int:
    """Segments that a host had to send again so far."""
    names, values = (line.split() for line in _tcp_lines(host))
    return int(values[names.index("RetransSegs")])


def _tcp_lines(host: Host) -> list[str]:
    lines: list[str] = host.run(["cat", "/proc/net/snmp"]).stdout.splitlines()
    return [line for line in lines if line.startswith("Tcp:")]


@pytest.fixture
def crowd(rig: Rig, appliance: Appliance) -> Iterator[Crowd]:
    """Half of the flows, masqueraded."""
    appliance.start()
    made = Crowd(rig.client, "10.2.0.2", FLOWS // 2)
    yield made
    made.close()


@pytest.fixture
def others(rig: Rig, crowd: Crowd) -> Iterator[Crowd]:
    """The other half, as they are."""
    made = Crowd(rig.client, "10.2.1.2", FLOWS // 2)
    yield made
    made.close()


def test_a_crash_loses_no_packet_and_no_count(
    rig: Rig, appliance: Appliance, crowd: Crowd, others: Crowd
) -> None:
    assert crowd.speak() == others.speak() == FLOWS // 2
    before, resent = crowd.flow(appliance), retransmitted(rig.client)
    appliance.kill9()
    assert crowd.speak() == others.speak() == FLOWS // 2
    appliance.start()
    assert crowd.speak() == others.speak() == FLOWS // 2
    assert retransmitted(rig.client) == resent
    after = crowd.flow(appliance)
    assert after["id"] == before["id"]
    assert after["packets_sent"] >= before["packets_sent"] + 2


def test_a_policy_that_changed_meanwhile_ends_its_flows_and_no_others(
    appliance: Appliance, crowd: Crowd, others: Crowd
) -> None:
    assert crowd.speak() == others.speak() == FLOWS // 2
    appliance.stop()
    appliance.cli("mapping", "remove", "to1", "--yes")
    assert others.speak() == FLOWS // 2, "what was allowed stays so until the daemon is back"
    appliance.start()
    assert others.speak() == 0
    assert crowd.speak() == FLOWS // 2


def test_a_flood_of_invented_clients_leaves_running_flows_alone(
    rig: Rig, appliance: Appliance, crowd: Crowd, others: Crowd
) -> None:
    resent = retransmitted(rig.client)
    rig.client.call(flood, FLOOD)
    assert crowd.speak() == others.speak() == FLOWS // 2
    assert retransmitted(rig.client) == resent
    # The next one gets through at once, or when it asks again after a second.
    assert wait_for(lambda: asks(rig), "a new connection")


def flood(count: int) -> None:
    """SYNs from all over the clients' network to the masqueraded server, none of which is followed up."""
    dice = random.Random(1)
    destination = socket.inet_aton("10.2.0.2")
    link = link_address("eth0"), _neighbour()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind(("eth0", 0))
        for _ in range(count):
            source = socket.inet_aton(f"10.1.0.{dice.randrange(3, 255)}")
            ip = struct.pack("!BBHHHBBH4s4s", 69, 0, 40, 0, 0x4000, 64, 6, 0, source, destination)
            ip = ip[:10] + _checksum(ip) + ip[12:]
            tcp = struct.pack(
                "!HHIIBBHHH", dice.randrange(1024, 65536), 7, dice.getrandbits(32), 0, 80, 2, 64240, 0, 0
            )
            check = _checksum(source + destination + struct.pack("!HH", 6, len(tcp)) + tcp)
            frame = link[1] + link[0] + b"\x08\x00" + ip + tcp[:16] + check + tcp[18:]
            # The queue of the link is full for a moment now and then.
            while _try(wire.send, frame) is None:
                pass


def problems(appliance: Appliance, about: str) -> list[object]:
    return [each for each in appliance.json("status", check=False)["problems"] if about in str(each)]


def asks(rig: Rig) -> bool:
    try:
        return bool(rig.client.call(ask_tcp, "10.2.0.2", 7, b"x") == b"x")
    except OSError:
        return False


def _neighbour() -> bytes:
    """The link address of the way out."""
    with open("/proc/thread-self/net/arp") as file:
        entry = next(line.split() for line in file if line.startswith("10.1.0.1 "))
    return bytes.fromhex(entry[3].replace(":", ""))


def _checksum(data: bytes) -> bytes:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def test_a_full_flow_table_refuses_new_flows_only_and_says_so(rig: Rig, appliance: Appliance) -> None:
    appliance.cli("appliance", "set", "--flow-table", "1024")
    appliance.start()
    made = Crowd(rig.client, "10.2.1.2", 512)
    try:
        assert made.speak() == 512
        with pytest.raises(REFUSED):
            rig.client.call(ask_tcp, "10.2.0.2", 7, b"x")
        assert made.speak() == 512
        status = appliance.json("status", check=False)
        assert status["counters"]["FLOW_TABLE_FULL"]["packets"]
        wait_for(lambda: problems(appliance, "flows"), "status to say that the flow table is full")
    finally:
        made.close()
