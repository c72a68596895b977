"""Ways through the appliance, as ping and traceroute see them: with NAT and without, IPv4 and IPv6."""

from collections.abc import Iterator

import pytest

from rig import Appliance, Host, Rig
from rig.payload import digest
from rig.probes import PINGERS, Answer, Kind, probe, trace
from rig.servers import start_echo, start_http
from rig.traffic import HTTP, ask_udp

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", "ipv6")

SIZE = 4 << 20
NARROW = 1300


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as built:
        built.client.sysctl(PINGERS)
        yield built


@pytest.fixture(scope="module")
def far(rig: Rig) -> Host:
    host = rig.behind(rig.server, mtu=NARROW)
    start_http(host)
    start_echo(host)
    return host


@pytest.fixture(scope="module", params=["plain-tc", "masquerade-tc", "masquerade-xdp"])
def appliance(request: pytest.FixtureRequest, rig: Rig, far: Host) -> Iterator[Appliance]:
    nat, _, mode = str(request.param).partition("-")
    with Appliance(rig, name=str(request.param)) as built:
        built.cli("init")
        built.cli("interface", "add", "inside0", "--role", "inside", "--mode", mode)
        masquerade = ["--masquerade"] if nat == "masquerade" else []
        built.cli("interface", "add", "outside0", "--role", "outside", "--mode", mode, *masquerade)
        built.cli("service", "add", "clients", "--address", "10.1.0.0/24,fd01::/64")
        built.cli(
            "mapping", "add", "out", "--from", "clients", "--to", "external", "--protocol", "tcp,udp,icmp"
        )
        rig.suit_xdp(mode == "xdp")
        built.start()
        yield built
    rig.suit_xdp(False)


FAMILY = pytest.mark.parametrize("family", ["ipv4", "ipv6"])


@FAMILY
@pytest.mark.parametrize("kind", ["udp", "icmp"])
def test_traced_way_shows_the_appliance_and_every_router(
    rig: Rig, appliance: Appliance, far: Host, family: str, kind: Kind
) -> None:
    address, router = getattr(far, family), getattr(rig.server, family)
    own = "10.1.0.1" if family == "ipv4" else "fd01::1"
    assert rig.client.call(lambda: trace(address, kind=kind)) == [own, router, address]


@FAMILY
@pytest.mark.parametrize("kind", ["udp", "icmp"])
def test_router_s_mtu_is_told(rig: Rig, appliance: Appliance, far: Host, family: str, kind: Kind) -> None:
    address, router = getattr(far, family), getattr(rig.server, family)
    forget_paths(rig.client)
    answer = rig.client.call(lambda: probe(address, kind=kind, size=1400))
    assert answer == Answer(router, *((3, 4) if family == "ipv4" else (2, 0)), NARROW)


@FAMILY
def test_bulk_finds_its_size_by_errors_alone(rig: Rig, appliance: Appliance, far: Host, family: str) -> None:
    address = getattr(far, family)
    for version, gateway in (("-4", "10.3.0.1"), ("-6", "fd03::1")):
        far.run(f"ip {version} route replace default via {gateway} dev eth0 advmss 1440".split())
    forget_paths(rig.client)

    def transfer() -> tuple[str, str]:
        with HTTP(address, 80) as connection:
            return connection.download(SIZE), connection.upload(SIZE)

    assert rig.client.call(transfer) == (digest(SIZE), digest(SIZE))


@FAMILY
def test_pinged_and_asked(rig: Rig, appliance: Appliance, far: Host, family: str) -> None:
    address = getattr(far, family)
    assert rig.client.call(lambda: probe(address, kind="icmp")) == Answer(address)
    assert rig.client.call(ask_udp, address, 7, b"hello") == b"hello"
    refused = rig.client.call(lambda: probe(address, port=9))
    assert refused == Answer(address, *((3, 3) if family == "ipv4" else (1, 4)))


def forget_paths(host: Host) -> None:
    for version in ("-4", "-6"):
        host.run(["ip", version, "route", "flush", "cache"])
