"""attachment: what the kernel answers about a link. Attaching itself is in test_links."""

from pathlib import Path

import pytest

from marchproxy.dataplane.kernel.attachment import BpfLink, LinkKind
from marchproxy.dataplane.kernel.errors import KernelError, NotSupported
from marchproxy.dataplane.kernel.links import attach_tc, attach_xdp, open_link
from marchproxy.dataplane.kernel.objects import BpfObject
from tests.dataplane.kernel.support import Wire

pytestmark = pytest.mark.requires(
    "root", "bpf", "bpffs", "ringbuf", "netns", "veth", "xdp-native", "tcx", commands=["clang"]
)


def test_kinds_are_named_as_operators_name_modes() -> None:
    assert [str(kind) for kind in LinkKind] == ["xdp", "xdp-generic", "tcx", "clsact"]


def test_detach_reaches_a_link_that_another_process_holds(tables: BpfObject, wire: Wire, bpffs: Path) -> None:
    """A pin removed would not be enough: the other file descriptor keeps the link alive."""
    held = attach_tc(tables.programs["tc_first"], wire.ifindex, pin=bpffs / "near0")
    open_link(bpffs / "near0").detach()
    info = held.info()
    assert (info.ifindex, info.attached) == (0, False)
    held.detach()


def test_several_programs_share_tcx(tables: BpfObject, wire: Wire) -> None:
    first = attach_tc(tables.programs["tc_first"], wire.ifindex)
    second = attach_tc(tables.programs["tc_second"], wire.ifindex)
    assert first.info().attached
    assert second.info().attached
    first.detach()
    assert second.info().attached
    second.detach()


def test_another_type_of_program_cannot_take_over(tables: BpfObject, wire: Wire) -> None:
    link = attach_xdp(tables.programs["xdp_first"], wire.ifindex, generic=False)
    with pytest.raises(KernelError, match="cannot swap in program tc_first"):
        link.update(tables.programs["tc_first"])
    assert link.info().program_id == tables.programs["xdp_first"].id
    link.detach()


def test_a_descriptor_that_is_no_link(tables: BpfObject) -> None:
    with pytest.raises((KernelError, NotSupported)):
        BpfLink(tables.maps["hash"].fd).update(tables.programs["tc_first"])
    with pytest.raises(KernelError, match="cannot read what a link is"):
        BpfLink(-1).info()
