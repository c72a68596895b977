"""perfbuf: records with packets behind them, and nothing left of a reader that is gone."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel.errors import KernelError
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.perfbuf import PerfBuffer
from marchproxy.dataplane.kernel.testrun import run
from tests.dataplane.kernel.support import FRAME, Compile

pytestmark = pytest.mark.requires("bpf", commands=["clang"])

HEAD = struct.pack("=I", 0x01020304)


@pytest.fixture
def telling(compile_bpf: Compile) -> Iterator[BpfObject]:
    source = Path(__file__).parent / "programs" / "perf.bpf.c"
    with BpfObject.load(compile_bpf(source)) as loaded:
        yield loaded


def told(telling: BpfObject) -> bool:
    return run(telling.programs["tc_tell"], FRAME).action == 0


def test_record_and_packet(telling: BpfObject) -> None:
    received: list[bytes] = []
    with PerfBuffer(telling.maps["records"], received.append) as buffer:
        assert told(telling)
        buffer.consume()
        assert [each[: 4 + len(FRAME)] for each in received] == [HEAD + FRAME]
        buffer.consume()
        assert len(received) == 1


def test_nobody_is_told_before_and_after(telling: BpfObject) -> None:
    assert not told(telling)
    with PerfBuffer(telling.maps["records"], lambda _: None):
        assert told(telling)
    assert not told(telling)


def test_what_finds_no_room_is_counted(telling: BpfObject) -> None:
    received: list[bytes] = []
    with PerfBuffer(telling.maps["records"], received.append, pages=1) as buffer:
        results = [told(telling) for _ in range(200)]
        buffer.consume()
        assert len(received) == results.count(True) < 200
        # How many were lost is told in front of the next record for which there is room.
        assert told(telling)
        buffer.consume()
        assert buffer.lost == results.count(False)


def test_error_of_the_reader_is_raised_once(telling: BpfObject) -> None:
    def fail(_: bytes) -> None:
        raise ValueError("unreadable")

    with PerfBuffer(telling.maps["records"], fail) as buffer:
        told(telling)
        with pytest.raises(ValueError, match="unreadable"):
            buffer.consume()
        buffer.consume()


def test_closed_twice_and_used_afterwards(telling: BpfObject) -> None:
    buffer = PerfBuffer(telling.maps["records"], lambda _: None)
    buffer.close()
    buffer.close()
    with pytest.raises(KernelError, match="closed"):
        buffer.consume()


def test_other_maps_are_refused(tables: BpfObject) -> None:
    with pytest.raises(ValueError, match="not a PERF_EVENT_ARRAY"):
        PerfBuffer(tables.maps["hash"], lambda _: None)
