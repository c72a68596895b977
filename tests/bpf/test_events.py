"""What the programs report: starts, ends and refusals, once each, with exact counts."""

from collections.abc import Iterator

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.layouts import EventRecord
from marchproxy.model.reason import Reason, Tier
from tests.bpf import bed as beds
from tests.bpf.bed import EVERY_DENIAL, Bed, flow_key
from tests.bpf.ear import Ear
from tests.bpf.packets import Packet, Tcp, Udp
from tests.bpf.policies import OPEN
from tests.bpf.talk import Talk, from_client
from tests.policy.build import plan

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs", "ringbuf")

SYN = from_client(Tcp(40000, 80))
QUESTION = from_client(Udp(40000, 80, b"?"), "fd01::2", "fd01::1")
EVERYTHING = 1 << layouts.EVENT_START | 1 << layouts.EVENT_END | 1 << layouts.EVENT_DENIED


@pytest.fixture
def ear(bed: Bed) -> Iterator[Ear]:
    bed.apply(plan(*OPEN), revision=7)
    bed.settings.change(wanted_events=EVERYTHING)
    ear = Ear(bed)
    yield ear
    ear.close()


def counts(event: EventRecord) -> tuple[int, ...]:
    """Packets there and back, bytes there and back."""
    return layouts.U64_PAIR.unpack(event.packets) + layouts.U64_PAIR.unpack(event.octets)


def test_connection(bed: Bed, tier: beds.Tier, ear: Ear) -> None:
    talk = Talk.established(bed, tier, SYN)
    (start,) = ear.heard()
    talk.answer(transport__flags="PA", transport__payload=bytes(500))
    talk.ask(transport__flags="R")
    (end,) = ear.heard()
    talk.ask(transport__flags="R")
    assert ear.heard() == []
    assert (start.kind, start.reason) == (layouts.EVENT_START, Reason.FORWARDED)
    assert (end.kind, end.reason) == (layouts.EVENT_END, Reason.RESET)
    for event in (start, end):
        assert event.key == flow_key(SYN)
        assert layouts.read_address(event.backend) == talk.answers.source
        assert layouts.read_port(event.backend_port) == 8080
        assert (event.mapping, event.revision) == (bed.mappings["open"], 7)
        assert event.ifindex == bed.ifindex[beds.INSIDE]
    assert start.id == end.id != 0
    assert start.started == end.started <= start.time <= end.time
    assert counts(end) == (3, 2, 3 * 40, 40 + 540)
    assert end.tier == Tier[tier.upper()].value


def test_connection_closed_by_both(bed: Bed, tier: beds.Tier, ear: Ear) -> None:
    talk = Talk.established(bed, tier, SYN)
    talk.ask(transport__flags="FA", transport__sequence=1001, transport__acknowledgement=5001)
    talk.answer(transport__flags="FA", transport__sequence=5001, transport__acknowledgement=1002)
    assert [event.kind for event in ear.heard()] == [layouts.EVENT_START]
    talk.ask(transport__flags="A", transport__sequence=1002, transport__acknowledgement=5002)
    (end,) = ear.heard()
    assert (end.kind, end.reason) == (layouts.EVENT_END, Reason.CLOSED)
    assert counts(end) == (4, 2, 4 * 40, 2 * 40)


def test_datagrams_start_with_the_first_answer(bed: Bed, tier: beds.Tier, ear: Ear) -> None:
    talk = Talk.open(bed, tier, QUESTION)
    assert ear.heard() == []
    talk.answer()
    (start,) = ear.heard()
    assert (start.kind, start.key) == (layouts.EVENT_START, flow_key(QUESTION))
    talk.answer()
    talk.ask()
    talk.ask()
    assert ear.heard() == []


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (SYN.but(destination=SYN.destination + 0x10001), Reason.NO_MAPPING),
        (SYN.but(transport__flags="A"), Reason.NO_FLOW),
        (QUESTION.but(ttl=1), Reason.TTL_EXPIRED),
        (SYN.but(options=bytes(4)), Reason.UNSUPPORTED),
    ],
)
def test_refusal(bed: Bed, tier: beds.Tier, ear: Ear, refused: Packet, reason: Reason) -> None:
    assert bed.send(tier, refused).reason is reason
    (event,) = ear.heard()
    assert (event.kind, event.reason, event.id) == (layouts.EVENT_DENIED, reason, 0)
    assert event.key == flow_key(refused)
    assert event.ifindex == bed.ifindex[beds.INSIDE]
    assert event.revision == 7


def denied(bed: Bed) -> dict[tuple[int, int, int], tuple[int, int]]:
    """Packets and bytes by mapping, reason and kind."""
    found = {}
    for key, cells in bed.maps["denied"].items_percpu():
        packets, octets = map(sum, zip(*map(layouts.COUNTER.struct.unpack, cells), strict=True))
        found[layouts.DENIED_KEY.struct.unpack(key)] = packets, octets
    return found


def test_refusals_are_counted_by_mapping_and_reason(bed: Bed, tier: beds.Tier) -> None:
    bed.apply(plan(*OPEN))
    elsewhere = SYN.but(destination=SYN.destination + 0x10001)
    for packet in (elsewhere, elsewhere, SYN.but(transport__flags="A")):
        bed.send(tier, packet)
    assert denied(bed) == {
        (0, Reason.NO_MAPPING, layouts.EVENT_DENIED): (2, 80),
        (0, Reason.NO_FLOW, layouts.EVENT_DENIED): (1, 40),
    }


def test_what_a_client_tries_again_is_told_as_one(bed: Bed, tier: beds.Tier, ear: Ear) -> None:
    bed.settings.change(refusals_per_second=0, repeat_ms=3_600_000)
    refused = SYN.but(destination=SYN.destination + 0x10001)
    for port in range(50_000, 50_005):
        bed.send(tier, refused.but(transport__source=port))
    bed.send(tier, refused.but(transport__destination=81))
    assert [
        (event.attempts, layouts.read_port(layouts.read_key(event.key).destination_port))
        for event in ear.heard()
    ] == [(1, 80), (1, 81)]
    bed.settings.change(repeat_ms=0)
    bed.send(tier, refused)
    assert [event.attempts for event in ear.heard()] == [5]


def test_a_scan_is_told_of_up_to_a_limit(bed: Bed, tier: beds.Tier, ear: Ear) -> None:
    bed.settings.change(refusals_per_second=0, denied_events_per_second=10)
    refused = SYN.but(destination=SYN.destination + 0x10001)
    before = lost(bed)
    for port in range(1, 201):
        bed.send(tier, refused.but(transport__destination=port))
    told = len(ear.heard())
    assert 10 <= told < 200
    assert told + lost(bed) - before == 200


def lost(bed: Bed) -> int:
    return sum(int.from_bytes(cell, "little") for cell in bed.maps["lost_events"].get_percpu(bytes(4)))


def test_nothing_is_told_that_nobody_wants(bed: Bed, tier: beds.Tier, ear: Ear) -> None:
    bed.settings.change(wanted_events=1 << layouts.EVENT_DENIED)
    talk = Talk.established(bed, tier, SYN)
    talk.ask(transport__flags="R")
    assert ear.heard() == []


def test_full_ring_loses_events_and_counts_them(bed: Bed, ear: Ear) -> None:
    before, runner = lost(bed), bed.runners["tc"]
    frame, ifindex = SYN.but(transport__flags="A").build(), bed.ifindex[beds.INSIDE]
    room = bed.maps["events"].max_entries // (layouts.EVENT.size + 8) + 1
    bed.settings.change(refusals_per_second=0, **EVERY_DENIAL)
    for _ in range(room + 100):
        runner.run(frame, ifindex)
    told = len(ear.heard())
    assert told < room
    assert told + lost(bed) - before == room + 100
    bed.counters.difference()
