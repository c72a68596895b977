"""ringbuf: records arrive in order, in an event loop, and nothing is lost with an exception."""

import asyncio
import select
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
def received() -> list[bytes]:
    return []


@pytest.fixture
def ring(tables: BpfObject, received: list[bytes]) -> Iterator[RingBuffer]:
    with RingBuffer(tables.maps["events"], received.append) as opened:
        yield opened


def readable(ring: RingBuffer) -> bool:
    return bool(select.select([ring], [], [], 0)[0])


def test_records_in_order(tables: BpfObject, ring: RingBuffer, received: list[bytes]) -> None:
    assert ring.consume() == 0
    run(tables.programs["tc_report"], FRAME, repeat=2)
    assert ring.consume() == 6
    assert received == EVENTS * 2


def test_readable_while_records_wait(tables: BpfObject, ring: RingBuffer) -> None:
    assert not readable(ring)
    run(tables.programs["tc_report"], FRAME)
    assert readable(ring)
    assert ring.consume(limit=2) == 2
    assert readable(ring)
    assert ring.consume(limit=2) == 1
    assert not readable(ring)


def test_in_an_event_loop(tables: BpfObject, ring: RingBuffer, received: list[bytes]) -> None:
    async def wait_for_events() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(ring, ring.consume)
        run(tables.programs["tc_report"], FRAME)
        async with asyncio.timeout(5):
            while len(received) < len(EVENTS):
                await asyncio.sleep(0)
        loop.remove_reader(ring)

    asyncio.run(wait_for_events())
    assert received == EVENTS


def test_an_exception_comes_out_and_costs_one_record(tables: BpfObject) -> None:
    received: list[bytes] = []

    def choosy(record: bytes) -> None:
        if record == EVENTS[1]:
            raise KeyError("not this one")
        received.append(record)

    with RingBuffer(tables.maps["events"], choosy) as ring:
        run(tables.programs["tc_report"], FRAME)
        with pytest.raises(KeyError, match="not this one"):
            ring.consume()
        assert received == EVENTS[:1]
        assert ring.consume() == 1
        assert received == [EVENTS[0], EVENTS[2]]


def test_what_waits_is_there_for_the_next_consumer(
    tables: BpfObject, ring: RingBuffer, received: list[bytes]
) -> None:
    run(tables.programs["tc_report"], FRAME)
    ring.consume(limit=1)
    ring.close()
    with RingBuffer(tables.maps["events"], received.append) as successor:
        assert successor.consume() == 2
    assert received == EVENTS


def test_closing(tables: BpfObject, ring: RingBuffer) -> None:
    ring.close()
    ring.close()
    with pytest.raises(KernelError, match="the ring buffer is closed"):
        ring.consume()
    with pytest.raises(KernelError, match="the ring buffer is closed"):
        ring.fileno()


def test_its_own_callback_cannot_close_it(tables: BpfObject) -> None:
    def close(_: bytes) -> None:
        opened.close()

    opened = RingBuffer(tables.maps["events"], close)
    run(tables.programs["tc_report"], FRAME)
    with pytest.raises(RuntimeError, match="cannot be closed by its own callback"):
        opened.consume()
    opened.close()


def test_other_maps_hold_no_records(tables: BpfObject) -> None:
    with pytest.raises(ValueError, match="map 'hash' is a HASH, not a RINGBUF"):
        RingBuffer(tables.maps["hash"], print)
