"""events: read in bulk, decoded in order, and never more than can be."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from marchproxy import bpf
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
    )
    made.read(lambda _: None)
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
    refuse(loaded, 25)
    assert len(read(reader)) == 10
    assert reader.lost == 15
    refuse(loaded, 5)
    assert len(read(reader)) == 5
    assert reader.lost == 15


@pytest.mark.requires("bpf", "ringbuf")
def test_what_found_the_ring_full_is_counted(loaded: BpfObject, reader: EventReader) -> None:
    room = loaded.maps["events"].max_entries // (layouts.EVENT.size + 8)
    refuse(loaded, room + 1000)
    delivered = len(read(reader))
    assert 1000 <= reader.lost <= room + 1000
    assert delivered + reader.lost == room + 1000


def test_kinds_that_no_program_reports_are_not_asked_for() -> None:
    assert EventReader.mask(frozenset({EventKind.BACKEND})) == 0
    assert EventReader.mask(frozenset({EventKind.BACKEND, EventKind.DENIED})) == 1 << layouts.EVENT_DENIED
