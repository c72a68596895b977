"""links: attach, adopt, replace, swap and detach, over a real wire."""

import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel import features, pins
from marchproxy.dataplane.kernel.errors import (
    AttachConflict,
    InterfaceMissing,
    NotSupported,
    PinFailed,
    PinMissing,
)
from marchproxy.dataplane.kernel.links import Link, LinkKind, attach_tc, attach_xdp, link_info, open_link
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.programs import Program
from tests.dataplane.kernel.support import NEEDED, Wire, eventually, run_with_capabilities

pytestmark = pytest.mark.requires(
    *("root", "bpf", "bpffs", "ringbuf", "netns", "veth", "xdp", "xdp-native", "tcx", "clsact"),
    commands=["clang"],
)

type Attach = Callable[[Program, int, Path | None], Link]

KINDS: dict[LinkKind, tuple[str, Attach]] = {
    # kind: the programs' prefix, and how it is attached
    LinkKind.XDP: ("xdp", lambda program, ifindex, pin: attach_xdp(program, ifindex, generic=False, pin=pin)),
    LinkKind.XDP_GENERIC: (
        "xdp",
        lambda program, ifindex, pin: attach_xdp(program, ifindex, generic=True, pin=pin),
    ),
    LinkKind.TCX: ("tc", lambda program, ifindex, pin: attach_tc(program, ifindex, pin=pin)),
    LinkKind.CLSACT: (
        "tc",
        lambda program, ifindex, pin: attach_tc(program, ifindex, pin=pin, force_clsact=True),
    ),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
kernel_links = pytest.mark.parametrize("kind", [LinkKind.XDP, LinkKind.XDP_GENERIC, LinkKind.TCX])


class Hook:
    """One way of attaching the test's programs to the wire, and what came of it."""

    def __init__(self, kind: LinkKind, tables: BpfObject, wire: Wire, pin: Path) -> None:
        prefix, self._attach = KINDS[kind]
        self.first = tables.programs[f"{prefix}_first"]
        self.second = tables.programs[f"{prefix}_second"]
        self.pin = pin
        self._array = tables.maps["array"]
        self._wire = wire

    def attach(self, program: Program) -> Link:
        return self._attach(program, self._wire.ifindex, self.pin)

    def attach_without_pin(self, program: Program) -> Link:
        return self._attach(program, self._wire.ifindex, None)

    def counts(self) -> tuple[int, int]:
        """Packets that the first and the second program have seen."""
        first, second = (self._array.get(struct.pack("=I", slot)) or b"" for slot in (0, 1))
        return int.from_bytes(first, "little"), int.from_bytes(second, "little")

    def carries(self, program: Program | None) -> bool:
        """Whether a packet sent now meets `program`, once, and not the other; None: neither."""
        before = self.counts()
        self._wire.send()
        expected = (before[0] + (program is self.first), before[1] + (program is self.second))
        return eventually(lambda: self.counts() == expected)


@pytest.fixture
def hook(kind: LinkKind, tables: BpfObject, wire: Wire, bpffs: Path) -> Hook:
    return Hook(kind, tables, wire, bpffs / "links" / "near0")


@every_kind
def test_packets_meet_the_program_until_it_is_detached(hook: Hook, kind: LinkKind, wire: Wire) -> None:
    assert hook.carries(None)
    link = hook.attach(hook.first)
    info = link.info()
    assert (info.kind, info.ifindex, info.program_id) == (kind, wire.ifindex, hook.first.id)
    assert info.attached
    assert hook.carries(hook.first)
    link.detach()
    assert hook.carries(None)
    assert not hook.pin.exists()
    link.detach()


@every_kind
def test_an_update_swaps_the_program(hook: Hook) -> None:
    link = hook.attach(hook.first)
    link.update(hook.second)
    assert hook.carries(hook.second)
    assert link_info(hook.pin).program_id == hook.second.id


@every_kind
def test_what_is_pinned_outlives_its_process(hook: Hook) -> None:
    hook.attach(hook.first).close()
    assert hook.carries(hook.first)
    assert link_info(hook.pin).attached


@kernel_links
def test_what_is_not_pinned_ends_with_its_process(hook: Hook) -> None:
    link = hook.attach_without_pin(hook.first)
    assert hook.carries(hook.first)
    link.close()
    link.close()
    assert hook.carries(None)


@every_kind
def test_attaching_again_adopts_the_pin(hook: Hook) -> None:
    hook.attach(hook.first).close()
    adopted = hook.attach(hook.second)
    assert hook.carries(hook.second)
    adopted.detach()
    assert hook.carries(None)


@kernel_links
def test_adopting_keeps_the_link(hook: Hook) -> None:
    """The same link, not another one of the same shape: no packet finds the interface without a program."""
    link = hook.attach(hook.first)
    hook.attach(hook.second).close()
    assert link.info().program_id == hook.second.id


@every_kind
def test_no_packet_is_missed_while_programs_are_swapped(hook: Hook, wire: Wire) -> None:
    link = hook.attach(hook.first)
    done = threading.Event()
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY)

    def swap() -> None:
        os.setns(namespace, os.CLONE_NEWNET)
        while not done.is_set():
            link.update(hook.second)
            link.update(hook.first)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(500):
            wire.send()
    finally:
        done.set()
        swapper.join()
        os.close(namespace)
    assert eventually(lambda: sum(hook.counts()) == 500), hook.counts()


@every_kind
def test_an_interface_that_came_back_is_attached_anew(hook: Hook, wire: Wire) -> None:
    hook.attach(hook.first).close()
    wire.cut()
    assert (link_info(hook.pin).attached, link_info(hook.pin).ifindex) == (False, 0)
    wire.lay()
    assert hook.carries(None)
    hook.attach(hook.first).close()
    assert hook.carries(hook.first)
    assert link_info(hook.pin).ifindex == wire.ifindex


@every_kind
def test_a_pin_of_another_interface_is_moved(hook: Hook, kind: LinkKind, tables: BpfObject) -> None:
    other = Wire("near1", "far1")
    other.lay()
    _, attach = KINDS[kind]
    attach(hook.first, other.ifindex, hook.pin).close()
    hook.attach(hook.first).close()
    assert hook.carries(hook.first)
    before = hook.counts()
    other.send()
    assert hook.carries(hook.first)
    assert hook.counts()[0] == before[0] + 1, "the other interface still has the program"


@every_kind
def test_one_program_on_two_interfaces(hook: Hook, kind: LinkKind) -> None:
    """Each pin is of one interface, though the same program is behind both."""
    other = Wire("near1", "far1")
    other.lay()
    _, attach = KINDS[kind]
    other_pin = hook.pin.with_name("near1")
    for _ in range(2):
        attach(hook.first, other.ifindex, other_pin).close()
        hook.attach(hook.first).close()
    assert link_info(other_pin).ifindex == other.ifindex
    open_link(other_pin).detach()
    assert link_info(hook.pin).attached
    assert hook.carries(hook.first)


@every_kind
def test_the_same_index_in_another_namespace_is_another_interface(hook: Hook, wire: Wire) -> None:
    hook.attach(hook.first).close()
    home, index = os.open("/proc/self/ns/net", os.O_RDONLY), wire.ifindex
    os.unshare(os.CLONE_NEWNET)
    try:
        there = Wire()
        there.lay()
        assert there.ifindex == index
        assert not link_info(hook.pin).attached
    finally:
        os.setns(home, os.CLONE_NEWNET)
        os.close(home)
    assert link_info(hook.pin).attached


@pytest.mark.parametrize(
    ("before", "kind"),
    [
        (LinkKind.XDP, LinkKind.XDP_GENERIC),
        (LinkKind.XDP_GENERIC, LinkKind.XDP),
        (LinkKind.TCX, LinkKind.CLSACT),
        (LinkKind.CLSACT, LinkKind.TCX),
        (LinkKind.XDP, LinkKind.TCX),
        (LinkKind.CLSACT, LinkKind.XDP),
    ],
)
def test_a_change_of_mode_replaces_what_was_there(
    hook: Hook, before: LinkKind, kind: LinkKind, tables: BpfObject, wire: Wire
) -> None:
    Hook(before, tables, wire, hook.pin).attach(tables.programs[f"{KINDS[before][0]}_second"]).close()
    hook.attach(hook.first).close()
    assert link_info(hook.pin).kind is kind
    assert hook.carries(hook.first)


@kernel_links
def test_what_cannot_be_pinned_is_not_attached(hook: Hook, tmp_path: Path) -> None:
    hook.pin = tmp_path / "off-bpffs"
    with pytest.raises(PinFailed, match="is not on a BPF file system"):
        hook.attach(hook.first)
    assert hook.carries(None)


@every_kind
def test_a_missing_interface(kind: LinkKind, tables: BpfObject, namespace: None) -> None:
    prefix, attach = KINDS[kind]
    with pytest.raises(InterfaceMissing, match="interface 12345"):
        attach(tables.programs[f"{prefix}_first"], 12345, None)


@pytest.mark.parametrize("kind", [LinkKind.XDP, LinkKind.XDP_GENERIC])
def test_somebody_else_s_xdp_program_is_not_pushed_away(hook: Hook) -> None:
    theirs = hook.attach_without_pin(hook.second)
    with pytest.raises(AttachConflict, match=r"interface near0 .* carries another XDP program already"):
        hook.attach(hook.first)
    assert not hook.pin.exists()
    assert hook.carries(hook.second)
    theirs.close()


def test_a_driver_without_xdp(tables: BpfObject, namespace: None) -> None:
    loopback = socket.if_nametoindex("lo")
    with pytest.raises(NotSupported, match=r"driver of interface lo .* does not take a native XDP") as raised:
        attach_xdp(tables.programs["xdp_first"], loopback, generic=False)
    assert "xdp-generic" in raised.value.hint
    attach_xdp(tables.programs["xdp_first"], loopback, generic=True).close()


def test_below_kernel_6_6_clsact_is_chosen(
    tables: BpfObject, wire: Wire, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "tcx", lambda: features.Answer("tcx", False, "6.6"))
    attach_tc(tables.programs["tc_first"], wire.ifindex, pin=bpffs / "near0").close()
    assert link_info(bpffs / "near0").kind is LinkKind.CLSACT


LIFE_CYCLE = """
import socket, sys
from pathlib import Path
from marchproxy.dataplane.kernel import links
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.testrun import run
bpffs = Path(sys.argv[2])
near = socket.if_nametoindex("near0")
for _ in range(2):
    tables = BpfObject.load(Path(sys.argv[1]), pin_dir=bpffs / "maps")
    tables.maps["hash"].set(bytes(8), bytes(8))
    tc, xdp = tables.programs["tc_first"], tables.programs["xdp_first"]
    run(tc, bytes(60), ifindex=near)
    links.attach_xdp(xdp, near, generic=False, pin=bpffs / "xdp").close()
    links.attach_tc(tc, near, pin=bpffs / "tcx").close()
    links.attach_tc(tc, near, pin=bpffs / "clsact", force_clsact=True).close()
for name in ("xdp", "tcx", "clsact"):
    info = links.link_info(bpffs / name)
    print(info.kind, info.attached)
    links.open_link(bpffs / name).detach()
"""


def test_three_capabilities_are_enough_for_a_whole_life(tables_object: Path, wire: Wire, bpffs: Path) -> None:
    """systemd gives the daemon no others: loading, pinning, adopting and detaching must do without."""
    said = run_with_capabilities(LIFE_CYCLE, tables_object, bpffs, keep=NEEDED)
    assert said.splitlines() == ["xdp True", "tcx True", "clsact True"]


def test_without_capabilities_attaching_is_refused_by_name(tables_object: Path) -> None:
    said = run_with_capabilities(
        "import sys\n"
        "from pathlib import Path\n"
        "from marchproxy.dataplane.kernel.errors import NotPermitted\n"
        "from marchproxy.dataplane.kernel.objects import BpfObject\n"
        "try: BpfObject.load(Path(sys.argv[1]))\n"
        "except NotPermitted as refused: print(refused.message, refused.hint, sep='\\n')\n",
        tables_object,
    )
    message, hint = said.splitlines()
    assert message.startswith("cannot load tables: Operation not permitted (EPERM)")
    assert "CAP_BPF" in hint


def test_open_link_of_what_is_no_link(tables: BpfObject, bpffs: Path) -> None:
    with pytest.raises(PinMissing):
        open_link(bpffs / "nothing")
    pins.pin(tables.maps["hash"].fd, bpffs / "map")
    with pytest.raises(PinFailed, match="map holds a bpf-map, not a bpf-link"):
        open_link(bpffs / "map")
