"""diversion: connections in transit come to a socket of ours, both ways, until there is a flow."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel.attach import detach_all
from marchproxy.dataplane.kernel.diversion import transparent, withdraw
from marchproxy.dataplane.kernel.tier import KernelTier
from marchproxy.model.entities import Interface, Role
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Plan
from rig import Rig
from rig.servers import start_echo
from tests.dataplane.loops import PATIENCE
from tests.policy import build
from tests.policy.build import mapping, service

pytestmark = pytest.mark.requires("root", "bpf", "bpffs", "ringbuf", "netns", "veth", "tcx", "ipv6")

INTERFACES = (Interface("inside0", Role.INSIDE), Interface("outside0", Role.OUTSIDE))
SERVER = {socket.AF_INET: "10.2.0.2", socket.AF_INET6: "fd02::2"}
BOTH = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])


def looked_at(*, audit: bool = False) -> Plan:
    """Port 7 of the server, for clients whose TLS names it."""
    wanted = replace(mapping("tls", "clients", "server", ports="7"), sni=True, audit=audit)
    clients, server = service("clients", "10.1.0.0/24", "fd01::/64"), service("server", *SERVER.values())
    return replace(build.plan(clients, server, wanted), interfaces=INTERFACES)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as made:
        start_echo(made.server)
        yield made


@pytest.fixture(autouse=True)
def clean(rig: Rig, bpffs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MARCHPROXY_BPFFS", str(bpffs / "mp"))
    monkeypatch.setenv("MARCHPROXY_RUNTIME_DIR", str(tmp_path))
    yield
    rig.middle.call(detach_all)


def with_tier(
    rig: Rig, scenario: Callable[[KernelTier], None] = lambda tier: None, plan: Plan | None = None
) -> None:
    """`scenario` in the middle host, beside a tier that carries `plan`, `looked_at` unless given."""

    async def play() -> None:
        made = KernelTier.create()
        try:
            await made.start(lambda event: None)
            await made.apply(plan or looked_at(), 1)
            await asyncio.to_thread(scenario, made)
        finally:
            await made.close()

    rig.middle.call(lambda: asyncio.run(play()))


def accepted(tier: KernelTier, family: socket.AddressFamily) -> socket.socket:
    """The next connection that was diverted."""
    listening = next(sock for sock in tier.diverted() if sock.family == family)
    listening.settimeout(PATIENCE)
    connection, _ = listening.accept()
    connection.settimeout(PATIENCE)
    return connection


@BOTH
def test_a_connection_to_somebody_else_is_accepted_here(rig: Rig, family: socket.AddressFamily) -> None:
    client = rig.client.socket(family, socket.SOCK_STREAM)
    client.settimeout(PATIENCE)

    def scenario(tier: KernelTier) -> None:
        client.setblocking(False)
        client.connect_ex((SERVER[family], 7))
        with accepted(tier, family) as ours:
            client.settimeout(PATIENCE)
            assert ours.getsockname()[:2] == (SERVER[family], 7)
            assert ours.getpeername()[:2] == client.getsockname()[:2]
            client.sendall(b"hello" * 20_000)
            left = 100_000
            while left:
                left -= len(ours.recv(65536))
            ours.sendall(b"welcome")
            assert client.recv(100) == b"welcome"
        assert client.recv(1) == b""
        assert tier.counters()[Reason.PASSED_TO_HOST].packets > 0

    with client:
        with_tier(rig, scenario)


@BOTH
def test_a_connection_onwards_may_carry_the_clients_own_address(
    rig: Rig, family: socket.AddressFamily
) -> None:
    """Answers to it come here too, although they are addressed to the client."""
    own = {socket.AF_INET: "10.1.0.2", socket.AF_INET6: "fd01::2"}[family]

    def scenario(_: KernelTier) -> None:
        with socket.socket(family, socket.SOCK_STREAM) as onwards:
            onwards.settimeout(PATIENCE)
            transparent(onwards)
            onwards.bind((own, 0))
            onwards.connect((SERVER[family], 7))
            onwards.sendall(b"hello")
            assert onwards.recv(100) == b"hello"

    with_tier(rig, scenario)


def test_who_listens_at_every_address_does_not_get_what_is_for_others(rig: Rig) -> None:
    def scenario(_: KernelTier) -> None:
        with (
            socket.create_server(("0.0.0.0", 8888)),
            rig.client.socket(socket.AF_INET, socket.SOCK_STREAM) as client,
        ):
            client.settimeout(PATIENCE)
            with pytest.raises(ConnectionRefusedError):
                client.connect((SERVER[socket.AF_INET], 8888))

    with_tier(rig, scenario)


def test_without_the_daemon_nobody_gets_through_unseen(rig: Rig) -> None:
    with_tier(rig)
    with rig.client.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        with pytest.raises(ConnectionRefusedError):
            client.connect((SERVER[socket.AF_INET], 7))


def test_without_the_daemon_audit_lets_through_all_the_same(rig: Rig) -> None:
    with_tier(rig, plan=looked_at(audit=True))
    with rig.client.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        client.connect((SERVER[socket.AF_INET], 7))
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"


def test_the_next_daemon_diverts_nothing_unless_its_plan_does(rig: Rig) -> None:
    told: list[int] = []
    with_tier(rig, lambda tier: told.append(tier._settings._values["diverting"]))
    with_tier(rig, lambda tier: told.append(tier._settings._values["diverting"]), Plan(interfaces=INTERFACES))
    assert told == [1, 0]


def test_rule_and_routes_come_back(rig: Rig) -> None:
    def scenario(tier: KernelTier) -> None:
        assert len(withdraw()) == 2
        tier._diversion.look_after()
        assert tier.problems() == []
        assert len(withdraw()) == 2

    with_tier(rig, scenario)


def test_detaching_takes_rule_and_routes_away(rig: Rig) -> None:
    with_tier(rig)
    assert any("routing rule" in line for line in rig.middle.call(detach_all))
    assert rig.middle.call(withdraw) == []
    assert "4d504456" not in rig.middle.run(["ip", "rule"]).stdout
