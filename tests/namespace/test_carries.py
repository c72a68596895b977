"""Real clients and servers, every tier: what is allowed arrives whole, what is not is refused at once."""

import socket
import struct
from collections.abc import Iterator

import pytest

from rig import Appliance, Rig, wait_for
from rig.payload import digest
from rig.traffic import HTTP, TIMEOUT, Talk, ask_tcp, ask_udp, fetch
from tests.namespace.conftest import define
from tests.namespace.test_faults import retransmitted

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")

LISTEN = ("10.1.0.1", "fd01::1")
SIZE = 20 << 20


@pytest.fixture(scope="module", params=["tc", "xdp", "xdp-generic", "sockets"])
def appliance(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Appliance]:
    """The appliance of this module once in each tier."""
    tier = str(request.param)
    with Appliance(rig, name=tier) as built:
        define(built, mode="auto" if tier == "sockets" else tier)
        built.start(*(["--no-bpf"] if tier == "sockets" else []))
        yield built


@pytest.mark.parametrize("address", LISTEN)
def test_http_by_one_connection_and_by_many(rig: Rig, appliance: Appliance, address: str) -> None:
    def ask() -> None:
        with HTTP(address, 8080) as connection:
            for _ in range(20):
                assert b"server" in connection.get("/")
        for _ in range(20):
            assert b"server" in fetch(address, 8080)

    rig.client.call(ask)


@pytest.mark.parametrize("address", LISTEN)
def test_every_byte_arrives_both_ways(rig: Rig, appliance: Appliance, address: str) -> None:
    def transfer() -> tuple[str, str]:
        with HTTP(address, 8080) as connection:
            return connection.download(SIZE), connection.upload(SIZE)

    assert rig.client.call(transfer) == (digest(SIZE), digest(SIZE))


@pytest.mark.parametrize("address", LISTEN)
def test_udp_is_answered(rig: Rig, appliance: Appliance, address: str) -> None:
    for size in (1, 512, 1400):
        assert rig.client.call(ask_udp, address, 7007, bytes(size)) == bytes(size)


def test_an_upload_ended_by_half_close_is_answered_whole(rig: Rig, appliance: Appliance) -> None:
    question = bytes(range(256)) * 4096
    assert rig.client.call(ask_tcp, LISTEN[0], 7007, question) == question


@pytest.mark.parametrize(("port", "reason"), [(8082, "NO_MAPPING"), (8083, "DENY_MAPPING")])
def test_a_denied_client_is_refused_at_once_and_counted(
    rig: Rig, appliance: Appliance, port: int, reason: str
) -> None:
    before, resent = count(appliance, reason), retransmitted(rig.client)
    with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
        rig.client.call(fetch, LISTEN[0], port)
    assert retransmitted(rig.client) == resent, "at once: nothing had to be said twice"
    assert count(appliance, reason) > before
    row = wait_for(lambda: denied(appliance, port), "the refusal to be shown")[0]
    assert (row["reason"], row["source"], row["destination_port"]) == (reason, "10.1.0.2", port)
    assert row["source_service"] == "clients"


def test_the_same_listener_serves_whom_it_is_for(rig: Rig, appliance: Appliance) -> None:
    assert b"server 10.2.0.2" in rig.clients[1].call(fetch, LISTEN[0], 8082)


@pytest.mark.parametrize(("own", "server"), [("10.2.0.1", "10.2.0.2"), ("fd02::1", "fd02::2")])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_the_host_itself_may_ask_from_a_port_that_is_listened_at(
    rig: Rig, appliance: Appliance, own: str, server: str, kind: socket.SocketKind
) -> None:
    """As tunnels do in user space, whose upstream sockets have any port of those that flows have."""

    def ask() -> bytes:
        with socket.socket(socket.AF_INET6 if ":" in own else socket.AF_INET, kind) as sock:
            sock.settimeout(TIMEOUT)
            if kind == socket.SOCK_STREAM:
                # It ends by a reset, and its port is free again at once.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.bind((own, 7007))
            sock.connect((server, 7))
            sock.send(b"mine")
            return sock.recv(100)

    if appliance.bpffs.name.endswith("sockets"):
        with pytest.raises(OSError, match="in use"):
            appliance.host.call(ask)
    else:
        assert appliance.host.call(ask) == b"mine"
    assert rig.client.call(ask_udp, LISTEN[0], 7007, b"others") == b"others"
    assert rig.client.call(ask_tcp, LISTEN[0], 7007, b"others") == b"others"


def test_flows_tell_the_truth(rig: Rig, appliance: Appliance) -> None:
    def look() -> list[dict[str, object]]:
        with Talk(LISTEN[0], 7007) as talk:
            assert talk.say(b"x" * 1000) == b"x" * 1000
            return list(appliance.json("flows", "--port", "7007", "--protocol", "tcp"))

    established = [row for row in rig.client.call(look) if row["state"] == "established"]
    assert len(established) == 1
    row = established[0]
    assert (row["mapping"], row["backend"], row["backend_port"]) == ("echo", "10.2.0.2", 7)
    assert row["verdict"] == "allow"
    assert int(str(row["bytes_sent"])) >= 1000
    assert int(str(row["bytes_received"])) >= 1000


def denied(appliance: Appliance, port: int) -> list[dict[str, object]]:
    """What was refused at a port, newest first."""
    return list(appliance.json("flows", "--denied", "--port", str(port)))


def count(appliance: Appliance, reason: str) -> int:
    """The counter of one reason, in packets."""
    counters = appliance.json("status", check=False)["counters"]
    return int(counters.get(reason, {}).get("packets", 0))
