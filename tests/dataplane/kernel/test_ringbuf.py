"""ringbuf: records arrive in order and whole, over the end of the buffer, and once."""

import struct
from collections.abc import Iterator

import pytest

from marchproxy.dataplane.kernel.errors import KernelError
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.ringbuf import RingBuffer
from marchproxy.dataplane.kernel.testrun import run
from tests.dataplane.kernel.support import FRAME

pytestmark = pytest.mark.requires("bpf", "ringbuf", commands=["clang"])

EVENTS = [struct.pack("=I", number) for number in range(3)]
"""What `tc_report` sends for a packet."""


@pytest.fixture
def ring(tables: BpfObject) -> Iterator[RingBuffer]:
    with RingBuffer(tables.maps["events"], 4) as opened:
        opened.take()
        yield opened


def records(ring: RingBuffer) -> list[bytes]:
    taken = ring.take()
    return [ring.record(taken, number) for number in range(ring.count(taken))]


def test_records_in_order_and_once(tables: BpfObject, ring: RingBuffer) -> None:
    assert records(ring) == []
    run(tables.programs["tc_report"], FRAME, repeat=2)
    assert records(ring) == EVENTS * 2
    assert records(ring) == []


def test_over_the_end_of_the_buffer(tables: BpfObject, ring: RingBuffer) -> None:
    packets = tables.maps["events"].max_entries // ring.stride // len(EVENTS)
    for share in (2, 3, 2, 3):
        run(tables.programs["tc_report"], FRAME, repeat=packets // share)
        assert records(ring) == EVENTS * (packets // share)


def test_a_full_buffer_is_taken_whole(tables: BpfObject, ring: RingBuffer) -> None:
    fit = tables.maps["events"].max_entries // ring.stride
    run(tables.programs["tc_report"], FRAME, repeat=fit)
    taken = records(ring)
    assert len(taken) in (fit - 1, fit)
    assert taken == (EVENTS * fit)[: len(taken)]


def test_one_octet_of_each(tables: BpfObject, ring: RingBuffer) -> None:
    run(tables.programs["tc_report"], FRAME, repeat=2)
    assert ring.column(ring.take(), 0) == bytes((0, 1, 2, 0, 1, 2))


def test_what_is_still_being_written_waits(tables: BpfObject, ring: RingBuffer) -> None:
    run(tables.programs["tc_report"], FRAME, repeat=2)
    # The kernel sets this bit while a program has a record; here the reader's view of it is another one.
    seen = bytearray(ring._data[:])
    begin = struct.unpack_from("N", ring._own)[0] % tables.maps["events"].max_entries
    fourth = len(seen) - 2 * tables.maps["events"].max_entries + begin + 3 * ring.stride
    seen[fourth + 3] |= 0x80
    kernels, ring._data = ring._data, seen  # type: ignore[assignment]
    assert records(ring) == EVENTS
    assert records(ring) == []
    ring._data = kernels
    assert records(ring) == EVENTS


def test_what_waits_is_there_for_the_next_consumer(tables: BpfObject, ring: RingBuffer) -> None:
    run(tables.programs["tc_report"], FRAME)
    ring.close()
    with RingBuffer(tables.maps["events"], 4) as successor:
        assert records(successor) == EVENTS


def test_closing(tables: BpfObject, ring: RingBuffer) -> None:
    ring.close()
    ring.close()
    with pytest.raises(KernelError, match="the ring buffer is closed"):
        ring.take()


def test_other_maps_hold_no_records(tables: BpfObject) -> None:
    with pytest.raises(ValueError, match="map 'hash' is a HASH, not a RINGBUF"):
        RingBuffer(tables.maps["hash"], 4)
