"""An interface that is a bridge: hosts on its ports are clients, and their own talk stays theirs."""

from collections.abc import Iterator

import pytest

from rig import Appliance, Rig
from rig.payload import digest
from rig.servers import start_echo, start_http
from rig.traffic import HTTP, ask_tcp, ask_udp
from tests.namespace.test_carries import count

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", "ipv6")

SIZE = 4 << 20


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """Both clients on one bridge: 10.1.0.2 and 10.1.0.3."""
    with Rig(clients=2) as built:
        built.middle.ip(
            "link add br0 type bridge",
            "link set br0 up",
            *(f"address flush dev inside{port}" for port in (0, 1)),
            *(f"link set inside{port} master br0" for port in (0, 1)),
            "address add 10.1.0.1/24 dev br0",
            "address add fd01::1/64 dev br0 nodad",
        )
        second = built.clients[1]
        second.ip(
            "address flush dev eth0 scope global",
            "address add 10.1.0.3/24 dev eth0",
            "address add fd01::3/64 dev eth0 nodad",
            "route replace default via 10.1.0.1",
            "route replace default via fd01::1",
        )
        second.ipv4, second.ipv6 = "10.1.0.3", "fd01::3"
        start_http(built.server)
        start_echo(built.server)
        start_echo(second)
        yield built


@pytest.fixture(scope="module")
def appliance(rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig) as built:
        built.cli("init")
        built.cli("interface", "add", "br0", "--role", "inside")
        built.cli("interface", "add", "outside0", "--role", "outside")
        both = f"{rig.server.ipv4},{rig.server.ipv6}"
        for name, port, listen, protocol in (("web", "80", "8001", "tcp"), ("echo", "7", "8002", "tcp,udp")):
            built.cli("service", "add", name, "--address", both, "--port", port)
            words = ("--from", "all", "--to", name, "--protocol", protocol, "--listen", f"*:{listen}")
            built.cli("mapping", "add", name, *words)
        built.start()
        yield built


@pytest.mark.parametrize("address", ["10.1.0.1", "fd01::1"])
@pytest.mark.parametrize("client", [0, 1])
def test_hosts_on_every_port_are_carried(rig: Rig, appliance: Appliance, client: int, address: str) -> None:
    def transfer() -> tuple[str, str]:
        with HTTP(address, 8001) as connection:
            return connection.download(SIZE), connection.upload(SIZE)

    host = rig.clients[client]
    before = count(appliance, "FORWARDED")
    assert host.call(transfer) == (digest(SIZE), digest(SIZE))
    assert host.call(ask_udp, address, 8002, b"hello") == b"hello"
    assert count(appliance, "FORWARDED") > before


def test_the_bridge_is_what_is_attached_to(rig: Rig, appliance: Appliance) -> None:
    found = {row["name"]: row for row in appliance.json("status")["interfaces"]}
    assert found["br0"]["attached"] == "tc"
    assert found["br0"]["problem"] == ""


def test_what_its_ports_say_to_each_other_is_not_ours(rig: Rig, appliance: Appliance) -> None:
    second = rig.clients[1]
    for address in (second.ipv4, second.ipv6):
        assert rig.client.call(ask_tcp, address, 7, b"neighbour") == b"neighbour"
    assert count(appliance, "NO_MAPPING") == 0
