"""testrun: one program, one packet, and everything that comes back."""

import pytest

from marchproxy.dataplane.kernel.errors import InterfaceMissing, NotSupported
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.testrun import run
from tests.dataplane.kernel.support import FRAME, Wire

pytestmark = pytest.mark.requires("root", "bpf", "ringbuf", commands=["clang"])


def test_xdp_returns_its_verdict_and_the_rewritten_packet(tables: BpfObject) -> None:
    result = run(tables.programs["xdp_first"], FRAME)
    assert (result.action, result.packet) == (2, b"a" + FRAME[1:])
    assert result.duration_ns >= 0


def test_tc_may_lengthen_the_packet_and_set_its_mark(tables: BpfObject) -> None:
    result = run(tables.programs["tc_first"], FRAME, mark=41)
    assert (result.action, result.packet, result.mark) == (0, FRAME + bytes(4), 42)


def test_programs_run_as_often_as_asked(tables: BpfObject) -> None:
    run(tables.programs["xdp_first"], FRAME, repeat=100)
    # The second run on sees the rewritten packet, whose ethertype is still the one that counts.
    assert tables.maps["array"].get(bytes(4)) == (100).to_bytes(8, "little")


@pytest.mark.requires("netns", "veth")
def test_programs_know_the_interface(tables: BpfObject, wire: Wire) -> None:
    ifindex = wire.ifindex
    assert run(tables.programs["xdp_second"], FRAME, ifindex=ifindex).action == ifindex
    assert run(tables.programs["tc_second"], FRAME, ifindex=ifindex).action == ifindex * 1000 + ifindex


@pytest.mark.requires("netns")
@pytest.mark.parametrize("name", ["xdp_second", "tc_second"])
def test_an_interface_of_another_namespace_is_missing(tables: BpfObject, namespace: None, name: str) -> None:
    with pytest.raises(InterfaceMissing, match=f"cannot run {name} on a packet of 60 bytes"):
        run(tables.programs[name], FRAME, ifindex=12345)


@pytest.mark.parametrize("length", [0, 13])
def test_a_frame_has_a_whole_header(tables: BpfObject, length: int) -> None:
    with pytest.raises(ValueError, match=f"a packet of {length} bytes, where the kernel runs at least 14"):
        run(tables.programs["xdp_first"], FRAME[:length])


def test_a_frame_may_be_nothing_but_a_header(tables: BpfObject) -> None:
    assert run(tables.programs["xdp_first"], FRAME[:14]).packet == b"a" + FRAME[1:14]


def test_other_kinds_of_program_are_not_for_packets(tables: BpfObject) -> None:
    with pytest.raises(NotSupported, match="neither_xdp_nor_tc is neither an XDP nor a TC program"):
        run(tables.programs["neither_xdp_nor_tc"], FRAME)
