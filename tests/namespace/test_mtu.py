"""Networks of different MTUs: what crosses them arrives whole, by segment sizes alone and by ICMP alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rig import Appliance, Host, Rig
from rig.payload import digest
from rig.probes import PINGERS, Answer, probe
from rig.servers import start_echo, start_http
from rig.traffic import HTTP, ask_udp

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", "ipv6", commands=["nft"])

SIZE = 8 << 20
NARROW = 1300
NO_ERRORS = """
table inet errors {
  chain input {
    type filter hook input priority 0;
    icmp type { destination-unreachable, time-exceeded, parameter-problem } drop
    icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } drop
  }
}
"""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """Clients with jumbo frames, one server with them and one with less than usual."""
    with Rig(clients=1, servers=2) as built:
        for link, host, mtu in (
            ("inside0", built.client, 9000),
            ("outside0", built.servers[0], 9000),
            ("outside1", built.servers[1], 1400),
        ):
            built.middle.ip(f"link set {link} mtu {mtu}")
            host.ip(f"link set eth0 mtu {mtu if mtu > 1500 else 1500}")
        built.client.sysctl(PINGERS)
        for server in built.servers:
            start_http(server)
            start_echo(server)
        yield built


@pytest.fixture(scope="module")
def far(rig: Rig) -> Host:
    """Behind a link of which neither the appliance nor the servers' network knows how narrow it is."""
    host = rig.behind(rig.servers[0], mtu=NARROW)
    start_http(host)
    start_echo(host)
    return host


@pytest.fixture(scope="module", params=["tc", "xdp"])
def appliance(request: pytest.FixtureRequest, rig: Rig, far: Host) -> Iterator[Appliance]:
    with Appliance(rig, name=str(request.param)) as built:
        built.cli("init")
        for name, role in (("inside0", "inside"), ("outside0", "outside"), ("outside1", "outside")):
            built.cli("interface", "add", name, "--role", role, "--mode", str(request.param))
        for name, host, port in (("near", rig.servers[1], 8001), ("far", far, 8002)):
            both = f"{host.ipv4},{host.ipv6}"
            built.cli("service", "add", name, "--address", both, "--port", "80")
            built.cli("service", "add", f"{name}-echo", "--address", both, "--port", "7")
            words = ("--from", "all", "--to", name, "--protocol", "tcp", "--listen", f"*:{port}")
            built.cli("mapping", "add", name, *words)
            words = ("--from", "all", "--to", f"{name}-echo", "--protocol", "udp", "--listen", f"*:{port}")
            built.cli("mapping", "add", f"{name}-echo", *words)
        rig.suit_xdp(str(request.param) == "xdp")
        built.start()
        yield built
    rig.suit_xdp(False)


LISTEN = pytest.mark.parametrize("address", ["10.1.0.1", "fd01::1"], ids=["v4", "v6"])


@contextmanager
def without_errors(*hosts: Host) -> Iterator[None]:
    """No ICMP error reaches these hosts."""
    for host in hosts:
        host.run(["nft", "-f", "-"], stdin=NO_ERRORS)
        forget_paths(host)
    try:
        yield
    finally:
        for host in hosts:
            host.run(["nft", "delete", "table", "inet", "errors"])


def forget_paths(host: Host) -> None:
    """What the host has learned of paths before."""
    for family in ("-4", "-6"):
        host.run(["ip", family, "route", "flush", "cache"])


def announce(far: Host, words: str) -> None:
    """How its default routes end."""
    for family, gateway in (("-4", "10.3.0.1"), ("-6", "fd03::1")):
        argv = f"ip {family} route replace default via {gateway} dev eth0 {words}"
        far.run(argv.split())


def transfer(address: str, port: int) -> tuple[str, str]:
    with HTTP(address, port) as connection:
        return connection.download(SIZE), connection.upload(SIZE)


WHOLE = (digest(SIZE), digest(SIZE))


@LISTEN
def test_segment_sizes_alone_do_where_errors_are_filtered(
    rig: Rig, appliance: Appliance, address: str
) -> None:
    """The client could send more than the appliance's narrow link takes, and would have to be told."""
    with without_errors(rig.client, rig.servers[1]):
        assert rig.client.call(transfer, address, 8001) == WHOLE


@LISTEN
def test_errors_of_a_router_alone_do_where_segment_sizes_cannot(
    rig: Rig, appliance: Appliance, far: Host, address: str
) -> None:
    """The narrow link is behind the server's router; its host is made to announce more than that takes."""
    announce(far, "advmss 8940")
    forget_paths(rig.client)
    try:
        assert rig.client.call(transfer, address, 8002) == WHOLE
    finally:
        announce(far, "")


@LISTEN
def test_datagrams_too_large_for_the_appliance_s_own_link(
    rig: Rig, appliance: Appliance, address: str
) -> None:
    forget_paths(rig.client)
    answer = rig.client.call(lambda: probe(address, size=2000, port=8001))
    assert answer == Answer(address, *((3, 4) if "." in address else (2, 0)), 1400)


@LISTEN
def test_datagrams_too_large_for_a_link_behind_a_router(
    rig: Rig, appliance: Appliance, far: Host, address: str
) -> None:
    forget_paths(rig.client)
    router = rig.servers[0].ipv4 if "." in address else rig.servers[0].ipv6
    answer = rig.client.call(lambda: probe(address, size=2000, port=8002))
    assert answer == Answer(router, *((3, 4) if "." in address else (2, 0)), NARROW)
    assert rig.client.call(ask_udp, address, 8002, bytes(1200)) == bytes(1200)
