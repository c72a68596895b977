"""events: read in bulk, decoded in order, and never more than can be."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from marchproxy import bpf
from marchproxy.dataplane.allowance import Allowance
from marchproxy.dataplane.kernel import events, layouts
from marchproxy.dataplane.kernel.events import EventReader
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.settings import Settings
from marchproxy.dataplane.kernel.testrun import run
from marchproxy.dataplane.kernel.tunnels import TunnelTable
from marchproxy.dataplane.records import Event, EventKind
from marchproxy.model.reason import Reason

MALFORMED = bytes(6) + bytes.fromhex("0200000000020800") + b"\x45" + bytes(25)
"""To the loopback's own address, an IPv4 header that says it is empty: refused, and reported as such."""


class Plenty(Allowance):
    """Nothing is held back but what a test says."""

    least: int = events.PER_READ

    def events(self, most: int) -> int:
        return min(most, self.least)


@pytest.fixture(scope="module")
def loaded() -> Iterator[BpfObject]:
    with BpfObject.load(Path(bpf.OBJECTS / "tc.bpf.o")) as made:
        yield made


@pytest.fixture
def reader(loaded: BpfObject) -> Iterator[EventReader]:
    made = EventReader(
        loaded.maps["events"],
        loaded.maps["lost_events"],
        MappingNames(loaded.maps["mapping_names"]),
        TunnelTable(loaded.maps["tunnels"]),
        Plenty(),
    )
    while read(made):
        pass
    Settings(loaded.maps["settings"]).change(
        wanted_events=EventReader.mask(frozenset(EventKind)), denied_events_per_second=1 << 30, repeat_ms=0
    )
    yield made
    made.close()


def refuse(loaded: BpfObject, times: int) -> None:
    run(loaded.programs["marchproxy_tc"], MALFORMED, repeat=times)


def read(reader: EventReader) -> list[Event]:
    found: list[Event] = []
    reader.read(found.append)
    return found


def test_mask() -> None:
    assert EventReader.mask(frozenset()) == 0
    assert EventReader.mask(frozenset({EventKind.FLOW_START})) == 1 << layouts.EVENT_START
    assert EventReader.mask(frozenset(EventKind)) == 0b11110


@pytest.mark.requires("bpf", "ringbuf")
def test_what_happened_is_read_once(loaded: BpfObject, reader: EventReader) -> None:
    assert read(reader) == []
    refuse(loaded, 3)
    assert [event.decision.reason for event in read(reader)] == [Reason.MALFORMED] * 3
    assert read(reader) == []


@pytest.mark.requires("bpf", "ringbuf")
def test_what_nobody_wants_is_not_even_made(loaded: BpfObject, reader: EventReader) -> None:
    Settings(loaded.maps["settings"]).change(wanted_events=EventReader.mask(frozenset({EventKind.FLOW_END})))
    refuse(loaded, 3)
    assert read(reader) == []
    assert reader.lost == 0


@pytest.mark.requires("bpf", "ringbuf")
def test_what_comes_too_fast_is_counted(
    loaded: BpfObject, reader: EventReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PER_READ", 10)
    monkeypatch.setattr(events, "HELD", 20)
    refuse(loaded, 25)
    assert len(read(reader)) == 10
    assert reader.lost == 5
    refuse(loaded, 15)
    assert len(read(reader)) == 10
    assert reader.lost == 10
    assert [len(read(reader)) for _ in range(3)] == [10, 0, 0]
    assert reader.lost == 10


@pytest.mark.requires("bpf", "ringbuf")
def test_what_found_the_ring_full_is_counted(loaded: BpfObject, reader: EventReader) -> None:
    room = loaded.maps["events"].max_entries // (layouts.EVENT.size + 8)
    refuse(loaded, room + 1000)
    delivered = len(read(reader))
    assert 1000 <= reader.lost <= room + 1000
    while some := len(read(reader)):
        delivered += some
    assert delivered + reader.lost == room + 1000


def test_kinds_that_no_program_reports_are_not_asked_for() -> None:
    assert EventReader.mask(frozenset({EventKind.BACKEND})) == 0
    assert EventReader.mask(frozenset({EventKind.BACKEND, EventKind.DENIED})) == 1 << layouts.EVENT_DENIED


def event(kind: int, number: int) -> bytes:
    """As it stands in the ring, behind its header."""
    fields: dict[str, object] = dict.fromkeys(layouts.EVENT.fields, 0)
    fields |= {
        "kind": kind,
        "id": number,
        "time": number,
        "reason": 1,
    }
    halves = {"packets": bytes(16), "bytes": bytes(16), "key": bytes(40), "backend": bytes(16)}
    fields |= halves | {"backend_port": bytes(2), "tier": 1}
    return bytes(8) + layouts.EVENT.struct.pack(*fields.values())


class Told:
    """What a reader tells of records that stand in the ring."""

    def __init__(self, reader: EventReader, monkeypatch: pytest.MonkeyPatch) -> None:
        self._reader, self._number = reader, 0
        self._ring: list[bytes] = []
        monkeypatch.setattr(reader._ring, "take", self._take)

    def put(self, *kinds: int) -> None:
        for kind in kinds:
            self._number += 1
            self._ring.append(event(kind, self._number))

    def read(self, most: int) -> list[tuple[int, EventKind]]:
        self._reader._allowance.least = most  # type: ignore[attr-defined]
        return [(event.decision.id, event.kind) for event in read(self._reader)]

    def _take(self) -> bytes:
        taken, self._ring = b"".join(self._ring), []
        return taken


START, END, DENIED, AUDITED = (
    (layouts.EVENT_START, EventKind.FLOW_START),
    (layouts.EVENT_END, EventKind.FLOW_END),
    (layouts.EVENT_DENIED, EventKind.DENIED),
    (layouts.EVENT_AUDITED, EventKind.AUDITED),
)


@pytest.mark.requires("bpf", "ringbuf")
def test_what_is_told_is_told_in_order(reader: EventReader, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(reader, monkeypatch)
    kinds = [START, DENIED, END, AUDITED, START, DENIED]
    told.put(*(number for number, _ in kinds))
    assert told.read(100) == [(number, kind) for number, (_, kind) in enumerate(kinds, 1)]


@pytest.mark.requires("bpf", "ringbuf")
def test_what_audit_lets_through_is_told_whatever_else_there_is(
    reader: EventReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, lost = Told(reader, monkeypatch), reader.lost
    told.put(*[START[0]] * 10, *[AUDITED[0]] * 3, *[DENIED[0]] * 10)
    assert told.read(0) == [(number, EventKind.AUDITED) for number in (11, 12, 13)]
    assert told.read(0) == []
    assert reader.lost == lost


@pytest.mark.requires("bpf", "ringbuf")
def test_flows_and_refusals_do_not_silence_each_other(
    reader: EventReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(reader, monkeypatch)
    told.put(*[START[0]] * 10, *[DENIED[0]] * 5)
    assert told.read(6) == [(number, EventKind.FLOW_START) for number in (1, 2, 3)] + [
        (number, EventKind.DENIED) for number in (11, 12, 13)
    ]
    assert [kind for _, kind in told.read(6)] == [EventKind.FLOW_START] * 4 + [EventKind.DENIED] * 2
    assert [number for number, _ in told.read(6)] == [8, 9, 10]


@pytest.mark.requires("bpf", "ringbuf")
def test_what_waits_is_bounded_and_the_newest_are_lost(
    reader: EventReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HELD", 4)
    told, lost = Told(reader, monkeypatch), reader.lost
    told.put(*[START[0], DENIED[0]] * 6)
    assert told.read(0) == []
    assert reader.lost == lost + 4
    told.put(END[0])
    assert reader.lost == lost + 4
    assert [number for number, _ in told.read(100)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert reader.lost == lost + 5


@pytest.mark.requires("bpf", "ringbuf")
def test_all_ends_are_counted_whoever_is_told_of_them(
    loaded: BpfObject, reader: EventReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    monkeypatch.setattr(
        reader, "_ended", lambda raws: counted.extend(layouts.U64.unpack_from(raw, 8)[0] for raw in raws)
    )
    monkeypatch.setattr(events, "HELD", 2)
    told, lost = Told(reader, monkeypatch), reader.lost
    told.put(START[0], END[0], END[0], DENIED[0], END[0])
    assert told.read(10) == [(1, START[1]), (2, END[1]), (4, DENIED[1])]
    assert (counted, reader.lost - lost) == ([2, 3, 5], 2)
    reader.want(frozenset({EventKind.DENIED}))
    told.put(START[0], END[0], DENIED[0])
    assert told.read(10) == [(8, DENIED[1])]
    assert (counted, reader.lost - lost) == ([2, 3, 5, 7], 2), "what nobody wants is not lost"


@pytest.mark.requires("bpf", "ringbuf")
def test_what_waits_is_told_in_the_end(reader: EventReader, monkeypatch: pytest.MonkeyPatch) -> None:
    told, found = Told(reader, monkeypatch), list[Event]()
    told.put(START[0], DENIED[0])
    assert told.read(0) == []
    told.put(END[0])
    reader.finish(found.append)
    assert [event.decision.id for event in found] == [1, 2]
    assert [number for number, _ in told.read(100)] == [3]
