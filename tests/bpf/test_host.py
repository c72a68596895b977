"""Connections of the host: their packets are left to it, and what was found is remembered for a second."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.tcpsocket import enter_repair
from marchproxy.model.reason import Reason
from rig.waiting import wait_for
from tests.bpf.bed import Bed, Tier, flow_key
from tests.bpf.packets import Packet, Tcp
from tests.bpf.policies import OPEN
from tests.bpf.talk import from_client
from tests.policy.build import plan

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "ipv6")

_VERSIONS = pytest.mark.parametrize(
    ("source", "address"), [("10.1.0.2", "10.1.0.1"), ("fd01::2", "fd01::1")], ids=["v4", "v6"]
)
V4 = ("10.1.0.2", "10.1.0.1")
LISTENED, UNHEARD = 80, 8080
"""Ports of the host: the policy has a listener at the first one."""
SECOND = 1_000_000_000
PLACE = struct.Struct("=40sQI4x")
"""`mp_host_place`: key, when, route epoch."""


def talk(addresses: tuple[str, str] = V4, port: int = LISTENED, flags: str = "A", **fields: Any) -> Packet:
    """What a client says that is connected with the host."""
    return from_client(Tcp(40000, port, flags), *addresses, **fields)


@contextmanager
def connected(bed: Bed, packet: Packet) -> Iterator[None]:
    """The host's end of the connection that a packet is of."""
    tcp = packet.transport
    assert isinstance(tcp, Tcp)
    family = socket.AF_INET6 if packet.source.version == 6 else socket.AF_INET
    with bed.host.call(socket.socket, family) as own:
        # It is connected, bound beside others, and closed without a word on the wire.
        enter_repair(own)
        own.bind((str(packet.destination), tcp.destination))
        own.connect((str(packet.source), tcp.source))
        yield


def epoch(bed: Bed) -> int:
    """Of routes and addresses."""
    settings = bed.maps["settings"].get(bytes(4))
    assert settings is not None
    number: int = layouts.SETTINGS.struct.unpack(settings)[layouts.SETTINGS.fields.index("route_epoch")]
    return number


def remembered(bed: Bed, packet: Packet) -> int | None:
    """In which place a packet's connection is, whichever CPU remembers it."""
    places, sought = bed.maps["host_places"], (flow_key(packet), epoch(bed))
    for number in range(places.max_entries):
        values = places.get_percpu(layouts.U32.pack(number))
        if any((key, since) == sought for key, _, since in map(PLACE.unpack, values)):
            return number
    return None


def have_known(bed: Bed, packet: Packet, age: int = 0) -> None:
    """Have every CPU know of a packet's connection for `age` nanoseconds."""
    place = remembered(bed, packet)
    assert place is not None
    # The programs' clock may be a tick behind.
    found = time.monotonic_ns() - SECOND // 10 - age
    value = PLACE.pack(flow_key(packet), found, epoch(bed))
    places, key = bed.maps["host_places"], layouts.U32.pack(place)
    places.set_percpu(key, [value] * len(places.get_percpu(key)))


@_VERSIONS
@pytest.mark.parametrize("port", [LISTENED, UNHEARD], ids=["at a listener", "at none"])
def test_a_connection_of_the_host_is_found_and_remembered(
    bed: Bed, tier: Tier, source: str, address: str, port: int
) -> None:
    bed.apply(plan(*OPEN))
    packet = talk((source, address), port)
    with connected(bed, packet):
        assert bed.send(tier, packet).reason is Reason.PASSED_TO_HOST
    assert remembered(bed, packet) is not None


def test_what_is_of_no_connection_is_not_remembered(bed: Bed, tier: Tier) -> None:
    bed.apply(plan(*OPEN))
    opening = talk(flags="S")
    with connected(bed, opening):
        assert bed.send(tier, opening).reason is Reason.FORWARDED
    bed.reset()
    bed.apply(plan(*OPEN))
    for packet, reason in ((talk(), Reason.NO_FLOW), (talk(port=UNHEARD), Reason.PASSED_TO_HOST)):
        assert bed.send(tier, packet).reason is reason
        assert remembered(bed, packet) is None


@_VERSIONS
def test_what_is_remembered_is_not_looked_up(bed: Bed, tier: Tier, source: str, address: str) -> None:
    """As long as a way out is: nothing else tells that the socket is gone."""
    bed.apply(plan(*OPEN))
    packet = talk((source, address))
    with connected(bed, packet):
        bed.send(tier, packet)

    def passes() -> bool:
        have_known(bed, packet)
        return bed.send(tier, packet).reason is Reason.PASSED_TO_HOST

    wait_for(passes, "a packet within a second of what is remembered")
    have_known(bed, packet, age=SECOND)
    assert bed.send(tier, packet).reason is Reason.NO_FLOW


def test_a_change_of_routes_or_addresses_ends_it(bed: Bed, tier: Tier) -> None:
    bed.apply(plan(*OPEN))
    packet = talk()
    with connected(bed, packet):
        bed.send(tier, packet)
    have_known(bed, packet)
    bed.settings.routes_changed()
    assert bed.send(tier, packet).reason is Reason.NO_FLOW


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (talk(flags="S"), Reason.FORWARDED),
        (talk(more=True), Reason.NO_FLOW),
        (talk().but(transport__source=40001), Reason.NO_FLOW),
        (talk().but(transport__destination=LISTENED + 1), Reason.PASSED_TO_HOST),
        (talk().but(source=talk().source + 1), Reason.NO_FLOW),
        (talk().but(destination=talk().destination + 0x10001), Reason.NO_FLOW),
    ],
    ids=["opening", "fragment", "source port", "destination port", "source", "destination"],
)
def test_nothing_else_goes_by_it(bed: Bed, tier: Tier, other: Packet, reason: Reason) -> None:
    bed.apply(plan(*OPEN))
    packet = talk()
    with connected(bed, packet):
        bed.send(tier, packet)
    have_known(bed, packet)
    assert bed.send(tier, other).reason is reason
