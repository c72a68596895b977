"""The way out of a network: what mappings allow passes through whole, the rest is refused at once."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rig import Appliance, Host, Rig, wait_for
from rig.payload import digest
from rig.probes import PINGERS, Answer, probe
from rig.servers import start_echo, start_http
from rig.traffic import HTTP, Talk, ask_tcp, ask_udp, fetch
from tests.namespace.test_faults import retransmitted

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")

SIZE = 20 << 20
REFUSED = (ConnectionRefusedError, ConnectionResetError)
WEB = ("10.2.0.2", "fd02::2")
SERVICES: tuple[tuple[str, ...], ...] = (
    ("lan", "--address", "10.1.0.0/24,fd01::/64"),
    ("guests", "--address", "10.1.1.0/24,fd01:0:0:1::/64"),
    ("web", "--address", "10.2.0.2,fd02::2"),
    ("abroad", "--address", "10.2.1.0/24,fd02:0:0:1::/64"),
)
MAPPINGS: tuple[tuple[str, ...], ...] = (
    ("out", "--from", "lan", "--to", "web", "--protocol", "tcp,udp", "--ports", "7,80"),
    ("ping", "--from", "lan", "--to", "web", "--protocol", "icmp"),
    ("abroad", "--from", "lan,guests", "--to", "abroad", "--protocol", "tcp,udp,icmp"),
    ("no-web", "--from", "guests", "--to", "web", "--protocol", "tcp", "--ports", "80", "--action", "deny"),
)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(clients=2, servers=2) as built:
        for server in built.servers:
            start_http(server)
            start_echo(server)
        start_echo(built.middle, 22, "10.1.0.1")
        for client in built.clients:
            client.sysctl(PINGERS)
        built.suit_xdp()
        yield built


@pytest.fixture(scope="module", params=["tc", "xdp", "xdp-generic"])
def appliance(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Appliance]:
    """A gateway between two networks inside and two outside, of which the second is masqueraded to."""
    mode = str(request.param)
    with Appliance(rig, name=mode) as built:
        built.cli("init")
        for name in ("inside0", "inside1"):
            built.cli("interface", "add", name, "--role", "inside", "--mode", mode)
        built.cli("interface", "add", "outside0", "--role", "outside", "--mode", mode)
        built.cli("interface", "add", "outside1", "--role", "outside", "--mode", mode, "--masquerade")
        for words in SERVICES:
            built.cli("service", "add", *words)
        for words in MAPPINGS:
            built.cli("mapping", "add", *words)
        built.start()
        yield built


def peer(host: Host, address: str) -> str:
    """What the server at `address` sees a client on `host` as."""
    return host.call(fetch, address, 80).decode().split(",")[0].removeprefix("client ")


def ping(host: Host, address: str) -> Answer:
    """What comes back for an echo request."""
    return host.call(lambda: probe(address, kind="icmp"))


def count(appliance: Appliance, reason: str) -> int:
    return int(appliance.json("status")["counters"].get(reason, {}).get("packets", 0))


@pytest.mark.parametrize("address", WEB)
def test_what_is_allowed_arrives_whole_both_ways(rig: Rig, appliance: Appliance, address: str) -> None:
    def transfer() -> tuple[str, str]:
        with HTTP(address, 80) as connection:
            return connection.download(SIZE), connection.upload(SIZE)

    assert rig.client.call(transfer) == (digest(SIZE), digest(SIZE))
    assert rig.client.call(ask_udp, address, 7, bytes(1400)) == bytes(1400)
    question = bytes(range(256)) * 1024
    assert rig.client.call(ask_tcp, address, 7, question) == question


def test_many_connections_one_after_the_other(rig: Rig, appliance: Appliance) -> None:
    def ask() -> None:
        for _ in range(200):
            assert b"server 10.2.0.2" in fetch("10.2.0.2", 80)

    rig.client.call(ask)


@pytest.mark.parametrize("address", WEB)
def test_echo_requests_are_answered(rig: Rig, appliance: Appliance, address: str) -> None:
    for _ in range(3):
        assert ping(rig.client, address) == Answer(address)
    flows = [row for row in appliance.json("flows", "--protocol", "icmp") if row["destination"] == address]
    assert flows
    assert flows[0]["mapping"] == "ping"
    assert flows[0]["source_service"] == "lan"


@pytest.mark.parametrize("address", WEB)
def test_who_may_not_ping_is_told_so(rig: Rig, appliance: Appliance, address: str) -> None:
    answer = ping(rig.clients[1], address)
    assert (answer.type, answer.code) == ((1, 1) if ":" in address else (3, 13))


@pytest.mark.parametrize(
    ("port", "reason", "mapping"), [(80, "DENY_MAPPING", "no-web"), (7, "NO_MAPPING", "")]
)
def test_what_is_denied_is_refused_at_once_and_shown_with_names(
    rig: Rig, appliance: Appliance, port: int, reason: str, mapping: str
) -> None:
    before, resent = count(appliance, reason), retransmitted(rig.clients[1])
    with pytest.raises(REFUSED):
        rig.clients[1].call(fetch, "10.2.0.2", port)
    assert retransmitted(rig.clients[1]) == resent, "at once: nothing had to be said twice"
    assert count(appliance, reason) > before

    def shown() -> list[dict[str, Any]]:
        rows = appliance.json("flows", "--denied", "--port", str(port), "--source", "10.1.1.2")
        return [row for row in rows if row["reason"] == reason]

    row = wait_for(shown, "the refusal to be shown")[0]
    assert (row["source_service"], row["destination_service"], row["mapping"]) == ("guests", "web", mapping)


def test_denied_datagrams_are_answered_with_icmp(rig: Rig, appliance: Appliance) -> None:
    # A datagram is not sent again, so whatever is heard is heard at once.
    with pytest.raises(
        (ConnectionRefusedError, PermissionError, OSError), match=r"unreachable|refused|No route"
    ):
        rig.clients[1].call(ask_udp, "10.2.0.2", 7, b"x")


def test_a_flow_without_translation_shows_as_it_is(rig: Rig, appliance: Appliance) -> None:
    def look() -> list[dict[str, Any]]:
        with Talk("10.2.0.2", 7) as talk:
            assert talk.say(b"x" * 1000) == b"x" * 1000
            return list(appliance.json("flows", "--port", "7", "--protocol", "tcp"))

    (row,) = [row for row in rig.client.call(look) if row["state"] == "established"]
    assert (row["destination"], row["backend"], row["mapping"]) == ("10.2.0.2", "10.2.0.2", "out")
    assert (row["source_service"], row["destination_service"]) == ("lan", "web")
    assert peer(rig.client, "10.2.0.2") == "10.1.0.2"


def test_an_interface_that_masquerades_shows_its_own_address(rig: Rig, appliance: Appliance) -> None:
    assert peer(rig.client, "10.2.1.2") == "10.2.1.1"
    assert peer(rig.clients[1], "fd02:0:0:1::2") == "fd02:0:0:1::1"
    assert ping(rig.client, "10.2.1.2") == Answer("10.2.1.2")
    assert rig.client.call(ask_udp, "10.2.1.2", 7, b"hello") == b"hello"


def test_two_clients_behind_one_address_are_not_mixed_up(rig: Rig, appliance: Appliance) -> None:
    def converse() -> bool:
        talks = [Talk("10.2.1.2", 7) for _ in range(50)]
        said = [talk.say(f"{number:04}".encode()) for number, talk in enumerate(talks)]
        for talk in talks:
            talk.close()
        return said == [f"{number:04}".encode() for number in range(50)]

    assert all(client.call(converse) for client in rig.clients)


def test_nobody_comes_in_from_outside(rig: Rig, appliance: Appliance) -> None:
    server = start_echo(rig.client, 7)
    try:
        with pytest.raises((*REFUSED, TimeoutError)):
            rig.server.call(ask_tcp, "10.1.0.2", 7, b"x")
    finally:
        server.stop()


def test_nobody_locks_himself_out(rig: Rig, appliance: Appliance) -> None:
    appliance.cli(
        *("mapping", "add", "nothing", "--from", "all", "--to", "all", "--protocol", "tcp,udp,icmp"),
        *("--action", "deny", "--priority", "0"),
    )
    try:
        with pytest.raises(REFUSED):
            rig.client.call(fetch, "10.2.0.2", 80)
        assert rig.client.call(ask_tcp, "10.1.0.1", 22, b"still here") == b"still here"
    finally:
        appliance.cli("mapping", "remove", "nothing", "--yes")
    assert b"server" in rig.client.call(fetch, "10.2.0.2", 80)


def test_a_mapping_ends_by_itself_and_takes_its_flows_along(rig: Rig, appliance: Appliance) -> None:
    expires = datetime.now(UTC) + timedelta(seconds=6)
    appliance.cli(
        *("mapping", "add", "visit", "--from", "guests", "--to", "web", "--protocol", "tcp", "--ports", "7"),
        *("--expires", f"{expires:%Y-%m-%dT%H:%M:%SZ}"),
    )

    def converse() -> bool:
        with Talk("10.2.0.2", 7) as talk:
            assert talk.say(b"x") == b"x"
            try:
                while talk.say(b"y") == b"y":
                    time.sleep(0.05)
            except OSError:
                return True
            return False

    assert rig.clients[1].call(converse)
    assert datetime.now(UTC) >= expires - timedelta(seconds=1)
    with pytest.raises(REFUSED):
        rig.clients[1].call(ask_tcp, "10.2.0.2", 7, b"x")
    appliance.cli("mapping", "remove", "visit", "--yes")
