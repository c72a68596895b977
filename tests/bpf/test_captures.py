"""Captures: which packets are taken, what is said of them, and that nobody notices."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest

from marchproxy.dataplane.capture.packet import CapturedPacket, CaptureKind
from marchproxy.dataplane.capture.wish import Wish
from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.capture import Capture
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.model.errors import Conflict, NotFound
from marchproxy.model.reason import Reason, Tier
from tests.bpf import bed as beds
from tests.bpf.bed import Bed
from tests.bpf.packets import Tcp, Udp
from tests.bpf.policies import ALICE, OPEN, WEB
from tests.bpf.talk import Talk, from_client
from tests.policy.build import cluster, mapping, plan

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs", "ringbuf")

SYN = from_client(Tcp(40000, 80))
STRANGE = from_client(Tcp(40000, 81), destination="10.2.0.9")
"""Nothing allows it."""
DENYING = (*OPEN, mapping("never", "all", "web", "*:443", action="deny"))
FORBIDDEN = from_client(Tcp(40001, 443))


class Taker:
    """A capture on the bed."""

    def __init__(self, bed: Bed) -> None:
        for name, number in bed.mappings.items():
            bed.maps["mapping_names"].set(layouts.U32.pack(number), name.encode().ljust(128, b"\0"))
        self.capture = Capture(bed.maps, bed.settings, MappingNames(bed.maps["mapping_names"]))
        self.turn = 0

    def begin(self, wish: Wish) -> None:
        self.turn = self.capture.begin(wish)

    def taken(self) -> list[CapturedPacket]:
        return list(self.capture.read(self.turn))


@pytest.fixture
def taker(bed: Bed) -> Iterator[Taker]:
    bed.apply(plan(*DENYING), revision=7)
    taker = Taker(bed)
    yield taker
    taker.capture.end()


def test_flow_as_it_came_and_as_it_left(bed: Bed, tier: beds.Tier, taker: Taker) -> None:
    talk = Talk.established(bed, tier, SYN)
    taker.begin(Wish())
    payload = bytes(range(256)) * 4
    asked = talk.ask(transport__flags="PA", transport__payload=payload)
    answered = talk.answer(transport__flags="A")
    came, left, back, out = taker.taken()
    assert came.data == talk.asks.but(transport__flags="PA", transport__payload=payload).build()
    assert left.data == asked.frame
    assert (back.data, out.data) == (talk.answers.but(transport__flags="A").build(), answered.frame)
    assert [each.kind for each in (came, left, back, out)] == [CaptureKind.CAME, CaptureKind.LEFT] * 2
    assert [each.interface for each in (came, left, back, out)] == [
        "inside0",
        "outside0",
        "outside0",
        "inside0",
    ]
    assert [each.reply for each in (came, left, back, out)] == [False, False, True, True]
    assert {each.mapping for each in (came, left, back, out)} == {"open"}
    assert {each.reason for each in (came, left, back, out)} == {Reason.FORWARDED}
    assert len({each.flow for each in (came, left, back, out)}) == 1
    assert came.flow != 0
    assert came.length == len(came.data)
    assert came.tier is Tier[tier.upper()]
    assert [each.time for each in (came, left, back, out)] == sorted(
        {came.time, left.time, back.time, out.time}
    )


def test_refused_packet_as_it_came(bed: Bed, tier: beds.Tier, taker: Taker) -> None:
    taker.begin(Wish())
    assert bed.send(tier, STRANGE).reason is Reason.NO_MAPPING
    assert bed.send(tier, FORBIDDEN).reason is Reason.DENY_MAPPING
    unknown, denied = taker.taken()
    assert (unknown.data, unknown.reason, unknown.mapping) == (STRANGE.build(), Reason.NO_MAPPING, "")
    assert (denied.data, denied.reason, denied.mapping) == (FORBIDDEN.build(), Reason.DENY_MAPPING, "never")
    assert (denied.kind, denied.flow, denied.interface) == (CaptureKind.DENIED, 0, "inside0")


def test_what_comes_out_is_the_same_with_and_without(bed: Bed, tier: beds.Tier, taker: Taker) -> None:
    talk = Talk.established(bed, tier, SYN)
    without = talk.ask(transport__flags="A")
    taker.begin(Wish())
    assert talk.ask(transport__flags="A") == without
    assert bed.send(tier, FORBIDDEN).reason is Reason.DENY_MAPPING


@pytest.mark.parametrize(
    ("wish", "number"),
    [
        (Wish(source=ip_network("10.1.0.0/24")), 5),
        (Wish(source=ip_network("10.1.0.3")), 0),
        (Wish(source=ip_network("10.2.0.0/16")), 0),
        (Wish(source=ip_network("fd00::/8")), 0),
        (Wish(destination=ip_network("10.1.0.1")), 4),
        (Wish(destination=ip_network("10.2.0.2")), 0),
        (Wish(destination=ip_network("10.2.0.9")), 1),
        (Wish(source=ip_network("10.1.0.2"), destination=ip_network("10.0.0.0/8")), 5),
        (Wish(service="web", services=(ip_network("10.2.0.2"),)), 4),
        (Wish(service="web", services=(ip_network("10.9.0.0/16"), ip_network("fd02::/64"))), 0),
        (Wish(port=80), 4),
        (Wish(port=8080), 4),
        (Wish(port=40000), 5),
        (Wish(port=20000), 0),
        (Wish(protocol="tcp"), 5),
        (Wish(protocol="udp"), 0),
        (Wish(mapping="open"), 4),
        (Wish(mapping="never"), 0),
        (Wish(reason=Reason.NO_MAPPING), 1),
        (Wish(reason=Reason.FORWARDED), 4),
        (Wish(denied=True), 1),
        (Wish(denied=True, reason=Reason.FORWARDED), 0),
    ],
    ids=str,
)
def test_chosen_packets(bed: Bed, tier: beds.Tier, taker: Taker, wish: Wish, number: int) -> None:
    """Of a question, its answer (both as they came and left), and a packet that nothing allows."""
    talk = Talk.established(bed, tier, SYN)
    taker.begin(wish)
    talk.ask(transport__flags="A")
    talk.answer(transport__flags="A")
    bed.send(tier, STRANGE)
    assert len(taker.taken()) == number


def test_prefix_within_another_is_in_both(bed: Bed, taker: Taker) -> None:
    taker.begin(Wish(source=ip_network("10.0.0.0/8"), destination=ip_network("10.1.0.0/16")))
    bed.send("tc", FORBIDDEN)
    bed.send("tc", STRANGE)
    assert [each.reason for each in taker.taken()] == [Reason.DENY_MAPPING]


def test_both_versions_of_icmp(bed: Bed, tier: beds.Tier, taker: Taker) -> None:
    taker.begin(Wish(protocol="udp"))
    bed.send(tier, from_client(Udp(40000, 81), "fd01::2", "fd02::9"))
    bed.send(tier, STRANGE)
    assert [each.reason for each in taker.taken()] == [Reason.NO_MAPPING]


def test_snap_cuts_and_keeps_the_length(bed: Bed, tier: beds.Tier, taker: Taker) -> None:
    talk = Talk.established(bed, tier, SYN)
    taker.begin(Wish(snap=64))
    talk.ask(transport__flags="PA", transport__payload=bytes(1000))
    came, left = taker.taken()
    assert (len(came.data), came.length) == (64, 14 + 40 + 1000)
    assert len(left.data) == 64


def test_what_is_beyond_the_rate_is_counted(bed: Bed, tier: beds.Tier, taker: Taker) -> None:
    talk = Talk.established(bed, tier, SYN)
    taker.begin(Wish(rate=3))
    for _ in range(20):
        talk.ask(transport__flags="A")
    taken = taker.taken()
    came = [each for each in taken if each.kind is CaptureKind.CAME]
    # A second may end in between.
    assert 3 <= len(came) <= 6
    assert len(taken) == 2 * len(came)
    assert taker.capture.missed == 20 - len(came)


def test_what_finds_no_room_is_counted(bed: Bed, taker: Taker) -> None:
    talk = Talk.established(bed, "tc", SYN)
    taker.begin(Wish(rate=10_000))
    frame = talk.asks.but(transport__flags="A", transport__payload=bytes(1400)).build()
    for _ in range(600):
        bed.runners["tc"].run(frame, bed.ifindex[beds.INSIDE])
    bed.counters.difference()
    taken = len(taker.taken())
    assert 100 < taken < 1200
    assert taken + taker.capture.missed == 1200


def test_what_audit_lets_through_is_told_of_as_such(bed: Bed, taker: Taker) -> None:
    only = cluster(ALICE, WEB, mapping("own", "alice", "web", "*:80"))
    bed.apply(plan(replace(only, audit=True)), revision=8)
    taker.begin(Wish(denied=True))
    assert bed.send("tc", from_client(Tcp(40000, 80), "10.1.0.3")).reason is Reason.FORWARDED
    (audited,) = taker.taken()
    assert (audited.kind, audited.reason) == (CaptureKind.AUDITED, Reason.NO_MAPPING)


def test_nothing_is_taken_after_the_end(bed: Bed, tier: beds.Tier, taker: Taker) -> None:
    taker.begin(Wish(source=ip_network("10.1.0.2")))
    taker.capture.leave(taker.turn)
    bed.send(tier, STRANGE)
    assert (
        layouts.SETTINGS.struct.unpack(bed.maps["settings"].get(bytes(4)) or b"")[
            layouts.SETTINGS.fields.index("wanted_events")
        ]
        == 0
    )
    assert bed.maps["capture_filter"].get(bytes(4)) == bytes(layouts.CAPTURE_FILTER.size)
    assert bed.count("capture_prefixes") == 0
    with pytest.raises(Conflict):
        taker.taken()


def test_programs_stop_by_themselves_when_nobody_reads(bed: Bed, tier: beds.Tier, taker: Taker) -> None:
    """As after a daemon that was killed, with its buffers still there for the test to look into."""
    taker.begin(Wish())
    held = bed.maps["capture_filter"].get(bytes(4)) or b""
    bed.maps["capture_filter"].set(bytes(4), layouts.U64.pack(1) + held[8:])
    bed.send(tier, STRANGE)
    spent = bed.maps["capture_spent"].get(bytes(4)) or b""
    assert layouts.CAPTURE_SPENT.struct.unpack(spent)[1] == 0


def test_events_wanted_meanwhile_do_not_end_it(bed: Bed, taker: Taker) -> None:
    taker.begin(Wish())
    bed.settings.want(6)
    bed.send("tc", STRANGE)
    assert len(taker.taken()) == 1


def test_one_at_a_time(taker: Taker) -> None:
    taker.begin(Wish())
    with pytest.raises(Conflict):
        taker.capture.begin(Wish())


def test_who_does_not_read_makes_room(taker: Taker, monkeypatch: pytest.MonkeyPatch) -> None:
    taker.begin(Wish())
    before = taker.turn
    monkeypatch.setattr("marchproxy.dataplane.kernel.capture.STALE", 0.0)
    taker.begin(Wish())
    with pytest.raises(Conflict):
        taker.capture.read(before)
    taker.capture.leave(before)
    assert taker.taken() == []


def test_unknown_mapping_is_refused_and_changes_nothing(bed: Bed, taker: Taker) -> None:
    with pytest.raises(NotFound):
        taker.begin(Wish(mapping="nobody"))
    assert not taker.capture.running
