"""Ways out that change under running flows: followed where NAT allows it, ended with a reason where not."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rig import Appliance, Host, Rig, wait_for
from rig.servers import start_echo
from rig.traffic import Talk, ask_udp
from tests.namespace.test_carries import count

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", "ipv6")

SHARED = ("10.9.9.9", "fd09::9")
"""Addresses of the appliance that both outside networks know a way to."""
STRICTLY = {f"net.ipv4.conf.{which}.rp_filter": "0" for which in ("all", "default")}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(servers=2) as built:
        for host in (built.middle, *built.servers):
            host.sysctl(STRICTLY)
        built.middle.ip(*(f"address add {address} dev lo" for address in SHARED))
        yield built


@pytest.fixture(scope="module")
def far(rig: Rig) -> Host:
    """A server with a way through either of the outside networks."""
    first, second = rig.servers
    host = rig.behind(first)
    host.sysctl(STRICTLY)
    second.ip(
        f"link add far type veth peer name eth1 netns {host.name}",
        "address add 10.4.0.1/24 dev far",
        "address add fd04::1/64 dev far nodad",
        "link set far up",
    )
    second.sysctl({"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"})
    host.ip("address add 10.4.0.2/24 dev eth1", "address add fd04::2/64 dev eth1 nodad", "link set eth1 up")
    second.ip(f"route add {host.ipv4} via 10.4.0.2", f"route add {host.ipv6} via fd04::2")
    start_echo(host)
    return host


@pytest.fixture(scope="module", params=["plain", "masquerade", "shared"])
def appliance(request: pytest.FixtureRequest, rig: Rig, far: Host) -> Iterator[Appliance]:
    words = {
        "plain": [],
        "masquerade": ["--masquerade"],
        "shared": ["--masquerade", *(word for each in SHARED for word in ("--nat-address", each))],
    }[str(request.param)]
    with Appliance(rig, name=str(request.param)) as built:
        built.cli("init")
        built.cli("interface", "add", "inside0", "--role", "inside")
        for name in ("outside0", "outside1"):
            built.cli("interface", "add", name, "--role", "outside", *words)
        built.cli("service", "add", "clients", "--address", "10.1.0.0/24,fd01::/64")
        built.cli(
            "mapping", "add", "out", "--from", "clients", "--to", "external", "--protocol", "tcp,udp,icmp"
        )
        built.start()
        yield built


@contextmanager
def moved(rig: Rig, far: Host) -> Iterator[None]:
    """The way to the server is through the second outside network."""
    turn(rig, far, rig.servers[1])
    try:
        yield
    finally:
        turn(rig, far, rig.servers[0])


def turn(rig: Rig, far: Host, router: Host) -> None:
    for address, via, family in ((far.ipv4, router.ipv4, "-4"), (far.ipv6, router.ipv6, "-6")):
        rig.middle.run(
            ["ip", family, "route", "replace", f"{address}/{32 if family == '-4' else 128}", "via", via]
        )


FAMILY = pytest.mark.parametrize("family", ["ipv4", "ipv6"])


@FAMILY
def test_running_connection_follows_or_ends_with_a_reason(
    rig: Rig, appliance: Appliance, far: Host, family: str, request: pytest.FixtureRequest
) -> None:
    address, follows = getattr(far, family), "masquerade" not in request.node.name
    talk = rig.client.call(Talk, address, 7)
    try:
        assert rig.client.call(talk.say, b"before") == b"before"
        before = count(appliance, "REROUTED")
        with moved(rig, far):
            if follows:
                wait_for(lambda: goes_by(rig, talk, 1), "the second network to be used")
                assert count(appliance, "REROUTED") == before
            else:
                with pytest.raises((ConnectionResetError, BrokenPipeError)):
                    wait_for(lambda: not rig.client.call(talk.say, b"after"), "the connection to end")
                assert count(appliance, "REROUTED") > before
                with rig.client.call(Talk, address, 7) as again:
                    assert rig.client.call(again.say, b"again") == b"again"
    finally:
        talk.close()


@FAMILY
def test_datagrams_go_on_in_a_new_flow_at_the_latest(
    rig: Rig, appliance: Appliance, far: Host, family: str
) -> None:
    address = getattr(far, family)
    assert rig.client.call(ask_udp, address, 7, b"before") == b"before"
    with moved(rig, far):
        wait_for(lambda: answered(rig, address), "an answer by the second network")


def goes_by(rig: Rig, talk: Talk, network: int) -> bool:
    """Whether what is said leaves by that outside network, and is answered."""
    before = sent(rig, network)
    assert rig.client.call(talk.say, b"x" * 2000) == b"x" * 2000
    return sent(rig, network) - before > 1500


def sent(rig: Rig, network: int) -> int:
    """Bytes that the appliance has sent there."""
    (link,) = json.loads(rig.servers[network].run(["ip", "-j", "-s", "link", "show", "eth0"]).stdout)
    return int(link["stats64"]["rx"]["bytes"])


def answered(rig: Rig, address: str) -> bool:
    try:
        return rig.client.call(lambda: ask_udp(address, 7, b"after", timeout=0.5)) == b"after"
    except OSError:
        return False
