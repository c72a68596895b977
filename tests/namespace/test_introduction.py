"""The PROXY protocol: a balancer before the appliance says who its client is, and backends are told."""

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from marchproxy.dataplane.proxy.protocol.proxyprotocol import Ends, build_v1, build_v2
from rig import Appliance, Rig, wait_for
from rig.servers import start_echo
from rig.traffic import TIMEOUT

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", "ipv6")

LISTENER, CLIENT = ip_address("10.1.0.1"), ip_address("198.51.100.7")
SAID = Ends(CLIENT, 40_000, ip_address("203.0.113.1"), 443)
MAPPINGS: tuple[tuple[str, ...], ...] = (
    ("told", "--from", "lan", "--listen", "10.1.0.1:7001", "--send-proxy", "v2"),
    ("believed", "--from", "public", "--listen", "10.1.0.1:7002", "--proxy-from", "10.1.0.2"),
    (
        "both",
        "--from",
        "public",
        "--listen",
        "10.1.0.1:7003",
        "--proxy-from",
        "10.1.0.2",
        "--send-proxy",
        "v1",
    ),
)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as built:
        start_echo(built.server, 7)
        yield built


@pytest.fixture(scope="module", params=["kernel", "sockets"])
def appliance(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig, name=str(request.param)) as built:
        built.cli("init")
        for name, role in (("inside0", "inside"), ("outside0", "outside")):
            built.cli("interface", "add", name, "--role", role)
        built.cli("service", "add", "lan", "--address", "10.1.0.0/24")
        built.cli("service", "add", "public", "--address", "198.51.100.0/24")
        built.cli("service", "add", "echo", "--address", "10.2.0.2", "--port", "7")
        for words in MAPPINGS:
            built.cli("mapping", "add", *words, "--to", "echo", "--protocol", "tcp")
        built.start(*(("--no-bpf",) if request.param == "sockets" else ()))
        yield built


def connected(rig: Rig, port: int) -> socket.socket:
    return rig.client.call(socket.create_connection, (str(LISTENER), port), TIMEOUT)


def exchange(sock: socket.socket, said: bytes, wanted: bytes) -> None:
    sock.sendall(said)
    heard = b""
    while len(heard) < len(wanted) and (piece := sock.recv(len(wanted) - len(heard))):
        heard += piece
    assert heard == wanted


def row(appliance: Appliance, **fields: Any) -> dict[str, Any]:
    """The live flow with these."""

    def found() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = appliance.json("flows")
        return [each for each in rows if fields.items() <= each.items()]

    return wait_for(found, f"a flow with {fields}")[0]


def test_a_backend_is_told_and_the_kernel_goes_on(rig: Rig, appliance: Appliance) -> None:
    """What was put before the client's bytes is part of what tells both connections apart."""
    with connected(rig, 7001) as sock:
        own, port = sock.getsockname()
        exchange(sock, b"early", build_v2(Ends(ip_address(own), port, LISTENER, 7001)) + b"early")
        bulk = bytes(range(256)) * 400
        exchange(sock, bulk, bulk)
        if not appliance.bpffs.name.endswith("sockets"):
            row(appliance, source_port=port, reason="HANDED_OFF")
        exchange(sock, bulk, bulk)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""


def test_the_client_of_a_balancer_is_who_it_says(rig: Rig, appliance: Appliance) -> None:
    with connected(rig, 7002) as sock:
        exchange(sock, build_v1(SAID) + bytes(100_000), bytes(100_000))
        found = row(appliance, source=str(CLIENT), source_port=40_000)
        assert (found["source_service"], found["mapping"], found["tier"]) == ("public", "believed", "sockets")
    with connected(rig, 7002) as sock:
        # Nobody has said that 10.1.0.2 itself may.
        sock.sendall(build_v1(None))
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_it_is_passed_on(rig: Rig, appliance: Appliance) -> None:
    with connected(rig, 7003) as sock:
        exchange(sock, build_v2(SAID), build_v1(Ends(CLIENT, 40_000, LISTENER, 7003)))
