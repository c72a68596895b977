"""Source ports towards backends: never one for two, never a local socket's, and what if they run out."""

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.model.reason import Reason
from tests.bpf.bed import Bed, Tier, flow_key
from tests.bpf.packets import Packet, Tcp, Udp
from tests.bpf.policies import OPEN
from tests.bpf.talk import NAT_PORT, Talk, from_client
from tests.policy.build import plan

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

TCP4, UDP4 = from_client(Tcp(40000, 80)), from_client(Udp(40000, 80))
TCP6 = from_client(Tcp(40000, 80), "fd01::2", "fd01::1")
UDP6 = from_client(Udp(40000, 80), "fd01::2", "fd01::1")
EACH = pytest.mark.parametrize("first", [TCP4, TCP6, UDP4, UDP6], ids=["tcp4", "tcp6", "udp4", "udp6"])
TRIES = 24
"""FLOW_NAT_TRIES in flow.h."""


@pytest.fixture(autouse=True)
def policy(bed: Bed) -> None:
    bed.apply(plan(*OPEN))


def ports(bed: Bed, firsts: Iterator[Packet], tier: Tier) -> list[int]:
    """Open flows; the source ports that they got."""
    found = []
    for first in firsts:
        assert bed.send(tier, first).reason is Reason.FORWARDED
        flow = bed.flow(first)
        assert flow is not None
        found.append(layouts.read_port(flow.source_port))
    return found


def others(first: Packet, count: int) -> Iterator[Packet]:
    """Flows of the same client from other ports."""
    return (first.but(transport__source=port) for port in range(1000, 1000 + count))


@EACH
def test_ports_are_in_range_and_never_given_twice(bed: Bed, tier: Tier, first: Packet) -> None:
    bed.settings.prepare(NatPorts(30000, 1000))
    found = ports(bed, others(first, 500), tier)
    assert len(set(found)) == 500
    assert set(found) <= set(range(30000, 31000))


@EACH
def test_a_client_that_comes_back_gets_the_same_port_again(bed: Bed, tier: Tier, first: Packet) -> None:
    """A server that remembers the tuple takes a new connection on it only from the same client port."""
    bed.settings.prepare(NatPorts())
    every = list(others(first, 300))
    found = ports(bed, iter(every), tier)
    for name in ("flows", "opening"):
        bed.maps[name].delete_many(list(bed.maps[name].keys()))
    assert ports(bed, reversed(every), tier) == found[::-1]


def test_a_tuple_that_is_opened_anew_keeps_its_port(bed: Bed, tier: Tier) -> None:
    bed.settings.prepare(NatPorts(30000, 2))
    one, two = TCP4.but(transport__source=1000), TCP4.but(transport__source=1002)
    ours = Talk.established(bed, tier, one)
    theirs = Talk.established(bed, tier, two)
    wanted = bed.flow(two)
    assert wanted is not None
    assert theirs.ask(transport__flags="R").reason is Reason.FORWARDED
    for key in (ours.asks, ours.answers):
        bed.maps["flows"].delete(flow_key(key))
    assert ports(bed, iter((two.but(transport__sequence=90000),)), tier) == [
        layouts.read_port(wanted.source_port)
    ]


def test_established_flows_keep_their_ports(bed: Bed, tier: Tier) -> None:
    Talk.established(bed, tier, TCP4)
    assert bed.send(tier, TCP4.but(transport__source=1)).reason is Reason.NO_NAT_PORT


def test_without_a_free_port_the_flow_is_refused(bed: Bed, tier: Tier) -> None:
    bed.settings.prepare(NatPorts(30000, 5))
    for first in others(TCP4, 5):
        Talk.established(bed, tier, first)
    assert bed.send(tier, TCP4).reason is Reason.NO_NAT_PORT
    assert bed.count("opening") == 0


@EACH
def test_port_of_a_half_open_flow_is_taken_over_when_no_other_is_free(
    bed: Bed, tier: Tier, first: Packet
) -> None:
    """Otherwise a few thousand spoofed opens would keep everybody else from a backend for a minute."""
    bed.settings.prepare(NatPorts(30000, 5))
    assert sorted(ports(bed, others(first, 5), tier)) == [30000, 30001, 30002, 30003, 30004]
    before = bed.count("opening")
    Talk.open(bed, tier, first)
    assert bed.count("opening") == before


def test_one_port_serves_one_flow_for_each_backend_and_protocol(bed: Bed, tier: Tier) -> None:
    found = [ports(bed, iter([first]), tier) for first in (TCP4, UDP4, TCP6, UDP6)]
    assert found == [[NAT_PORT]] * 4


@EACH
def test_port_of_an_ended_flow_is_taken_over_when_no_other_is_free(
    bed: Bed, tier: Tier, first: Packet
) -> None:
    talk = Talk.established(bed, tier, first)
    following = first.but(transport__source=40001)
    assert bed.send(tier, following).reason is Reason.NO_NAT_PORT
    if isinstance(first.transport, Tcp):
        talk.ask(transport__flags="R")
        again = Talk.established(bed, tier, following)
        assert bed.flow(first) is None, "its stragglers would be taken for the new flow's"
        assert again.answers == talk.answers
        assert talk.ask(transport__flags="A").reason is Reason.NO_FLOW


def test_port_of_the_flow_that_ended_first_is_taken_over_first(bed: Bed, tier: Tier) -> None:
    bed.settings.prepare(NatPorts(30000, 3))
    talks = [Talk.established(bed, tier, first) for first in others(TCP4, 3)]
    for age, talk in enumerate((talks[1], talks[2], talks[0])):
        talk.ask(transport__flags="R")
        # The clock of the flows ticks in milliseconds: order the ends without waiting for it.
        for packet in (talk.asks, talk.answers):
            flow = bed.flow(packet)
            assert flow is not None
            _store(bed, packet, flow._replace(last_seen=(1 + age) * 1_000_000))
    new = [
        Talk.established(bed, tier, first).answers.transport
        for first in others(from_client(Tcp(0, 80), "10.1.0.3"), 3)
    ]
    old = [talks[index].answers.transport for index in (1, 2, 0)]
    assert new == old


def _store(bed: Bed, packet: Packet, flow: layouts.FlowEntry) -> None:
    bed.maps["opening"].set(flow_key(packet), layouts.FLOW.struct.pack(*flow))


@pytest.mark.parametrize("first", [TCP4, TCP6, UDP4, UDP6], ids=["tcp4", "tcp6", "udp4", "udp6"])
@pytest.mark.parametrize("bound", ["any", "own"])
def test_port_of_a_local_socket_is_never_taken(bed: Bed, tier: Tier, first: Packet, bound: str) -> None:
    bed.settings.prepare(NatPorts(30000, 2))
    kind = socket.SOCK_STREAM if isinstance(first.transport, Tcp) else socket.SOCK_DGRAM
    family = socket.AF_INET if first.version == 4 else socket.AF_INET6
    addresses = {4: {"any": "0.0.0.0", "own": "10.2.0.1"}, 6: {"any": "::", "own": "fd02::1"}}
    for taken in (30000, 30001):
        with closing(socket.socket(family, kind)) as local:
            local.bind((addresses[first.version][bound], taken))
            if kind == socket.SOCK_STREAM:
                local.listen()
            free = 30001 if taken == 30000 else 30000
            assert ports(bed, iter([first, first.but(transport__source=1)]), tier) == [free, free]
        bed.maps["opening"].delete_many(list(bed.maps["opening"].keys()))


def test_port_of_a_local_connection_to_the_backend_is_never_taken(bed: Bed, tier: Tier) -> None:
    far = bed.server.socket(socket.AF_INET, socket.SOCK_STREAM)
    with closing(far), closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as local:
        far.bind(("10.2.0.2", 8080))
        far.listen()
        local.bind(("10.2.0.1", NAT_PORT))
        local.connect(("10.2.0.2", 8080))
        assert bed.send(tier, TCP4).reason is Reason.NO_NAT_PORT


@EACH
def test_answers_to_nobodys_port_are_the_hosts(bed: Bed, tier: Tier, first: Packet) -> None:
    talk = Talk.established(bed, tier, first)
    stray = talk.answers.but(transport__destination=NAT_PORT + 1)
    assert bed.send(tier, stray).reason is Reason.PASSED_TO_HOST
    from_another = talk.answers.but(source=talk.answers.source + 1)
    assert bed.send(tier, from_another).reason is Reason.PASSED_TO_HOST


def test_search_looks_at_every_port_of_a_small_range(bed: Bed, tier: Tier) -> None:
    """The step between tries is prime, so that as many tries see as many ports."""
    bed.settings.prepare(NatPorts(30000, TRIES))
    assert len(set(ports(bed, others(TCP4, TRIES), tier))) == TRIES


@EACH
def test_a_flow_whose_other_half_was_evicted_sends_from_nobody_elses_port(
    bed: Bed, tier: Tier, first: Packet
) -> None:
    """Otherwise what the backend answers would reach another client."""
    talk = Talk.open(bed, tier, first)
    bed.maps["opening"].delete(flow_key(talk.answers))
    second = first.but(transport__source=50000)
    assert bed.send(tier, second).reason is Reason.FORWARDED
    more = bed.send(tier, first.but(transport__flags="A") if isinstance(first.transport, Tcp) else first)
    if isinstance(first.transport, Tcp):
        assert more.reason is Reason.NO_FLOW
        assert bed.flow(first) is None
        return
    # There is one port, so it is taken over whole: the second client's half goes with it.
    taken = bed.flow(talk.answers)
    assert taken is not None
    assert layouts.read_port(taken.destination_port) == 40000
    assert bed.flow(second) is None
