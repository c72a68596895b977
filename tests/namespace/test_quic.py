"""QUIC that passes through a whole appliance unread: a client that comes from elsewhere keeps its backend."""

import json
from collections.abc import Iterator

import pytest
from aioquic.quic.packet import QuicProtocolVersion

from marchproxy import bpf
from marchproxy.dataplane.kernel.objects import open_pinned_map
from rig import Appliance, Rig
from tests.quicpeers import QuicClient, start_names

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")

PORT = 4433
V4, V6 = ("10.2.0.2", "10.2.0.3", "10.2.0.4"), ("fd02::2", "fd02::3")
AT = {4: ("10.1.0.1", PORT), 6: ("fd01::1", PORT)}
OWN = {4: ("10.1.0.2", "10.1.0.77"), 6: ("fd01::2", "fd01::77")}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as built:
        built.server.add_address("eth0", *(f"{each}/24" for each in V4[1:]), f"{V6[1]}/64")
        built.client.add_address("eth0", "10.1.0.77/24", "fd01::77/64")
        start_names(built.server, PORT, *V4, *V6)
        start_names(built.server, PORT + 1, *V4, *V6, retry=True)
        yield built


@pytest.fixture(scope="module", params=["kernel", "sockets"])
def appliance(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig, name=str(request.param)) as built:
        built.cli("init")
        for name, role in (("inside0", "inside"), ("outside0", "outside")):
            built.cli("interface", "add", name, "--role", role)
        built.cli("service", "add", "lan", "--address", "10.1.0.0/24,fd01::/64")
        for name, port in (("names", PORT), ("retrying", PORT + 1)):
            built.cli("service", "add", name, "--address", ",".join((*V4, *V6)), "--port", str(port))
            words = ("--from", "lan", "--to", name, "--protocol", "quic", "--balance", "round-robin")
            built.cli("mapping", "add", name, *words, "--listen", f"*:{port}")
        built.start(*(("--no-bpf",) if request.param == "sockets" else ()))
        yield built


@pytest.mark.parametrize("port", [PORT, PORT + 1], ids=["plain", "retry"])
@pytest.mark.parametrize("version", [4, 6])
def test_a_client_that_moves_keeps_its_connection(
    rig: Rig, appliance: Appliance, version: int, port: int
) -> None:
    home, away = OWN[version]

    def moves() -> list[list[tuple[str, int]]]:
        # In turns: each has another backend than the one before it, and what is new after a move, too.
        at = AT[version][0], port
        with QuicClient(at, home) as one, QuicClient(at, home) as two:
            heard = [[one.ask()], [two.ask()]]
            for own in (home, away, home):
                for client, said in zip((one, two), heard, strict=True):
                    client.move(own)
                    said.append(client.ask())
        return heard

    heard = rig.client.call(moves)
    names = [said[0][0] for said in heard]
    assert len(set(names)) == 2
    assert heard == [[(name, number) for number in range(1, 5)] for name in names]


def test_backends_are_taken_in_turns_and_versions_agreed_on(rig: Rig, appliance: Appliance) -> None:
    versions = [QuicProtocolVersion.VERSION_2, QuicProtocolVersion.VERSION_1]

    def asked() -> str:
        with QuicClient(AT[4], OWN[4][0], supported_versions=versions) as client:
            return client.ask()[0]

    assert {rig.client.call(asked) for _ in V4} == set(V4)


def test_a_client_that_moves_is_seen_as_two_flows_to_one_backend(rig: Rig, appliance: Appliance) -> None:
    def moves() -> str:
        with QuicClient(AT[4], OWN[4][0]) as client:
            name, _ = client.ask()
            client.move(OWN[4][1])
            assert client.ask() == (name, 2)
            return name

    name = rig.client.call(moves)
    flows = json.loads(appliance.cli("flows", "--output", "json").stdout)
    moved = [each for each in flows if each["source"] == OWN[4][1]]
    assert name in {each["backend"] for each in moved}
    assert {each["protocol"] for each in moved} == {"udp"}


@pytest.mark.parametrize("appliance", ["kernel"], indirect=True)
@pytest.mark.parametrize("port", [PORT, PORT + 1], ids=["plain", "retry"])
def test_a_client_names_the_id_that_it_has_heard(rig: Rig, appliance: Appliance, port: int) -> None:
    """So it is among those that no flood of first packets pushes out, from its handshake on."""

    def named() -> set[bytes]:
        with open_pinned_map(appliance.bpffs / f"v{bpf.ABI}" / "quic_homes") as held:
            return set(held.keys())

    def asks() -> str:
        with QuicClient((AT[4][0], port), OWN[4][0]) as client:
            return client.ask()[0]

    before = named()
    assert rig.client.call(asks) in V4
    assert len(named() - before) == (1 if port == PORT else 2)
