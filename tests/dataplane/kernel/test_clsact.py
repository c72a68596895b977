"""clsact: our filter, other people's filters, and a kill at any moment. The rest is in test_links."""

import json
import subprocess
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel import clsact, pins
from marchproxy.dataplane.kernel.clsact import ClsactFilter
from marchproxy.dataplane.kernel.errors import AttachConflict, PinFailed
from marchproxy.dataplane.kernel.links import attach_tc, link_info, open_link
from marchproxy.dataplane.kernel.objects import BpfObject
from tests.dataplane.kernel.support import Wire

pytestmark = pytest.mark.requires(
    "root", "bpf", "bpffs", "ringbuf", "netns", "veth", "clsact", commands=["clang", "tc"]
)


def filters(wire: Wire) -> list[tuple[int, str]]:
    """Priority and program of each filter at the ingress, as iproute2 sees them."""
    command = ["tc", "-json", "filter", "show", "dev", wire.near, "ingress"]
    shown = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return [
        (row["pref"], row["options"]["prog"]["name"]) for row in shown if "prog" in row.get("options", {})
    ]


@pytest.fixture
def pin(bpffs: Path) -> Path:
    return bpffs / "near0"


class Killed(BaseException):
    """What a kill looks like from inside: nothing after it runs."""


def test_its_place_is_handle_1_at_priority_1(tables: BpfObject, wire: Wire, pin: Path) -> None:
    ClsactFilter.attach(tables.programs["tc_first"], wire.ifindex, pin)
    assert filters(wire) == [(1, "tc_first")]


def test_without_a_pin_it_stays_until_detached(tables: BpfObject, wire: Wire) -> None:
    link = ClsactFilter.attach(tables.programs["tc_first"], wire.ifindex, None)
    link.close()
    assert filters(wire) == [(1, "tc_first")]
    link.detach()
    assert filters(wire) == []


def test_a_filter_of_somebody_else_is_refused_and_kept(tables: BpfObject, wire: Wire, pin: Path) -> None:
    ClsactFilter.attach(tables.programs["tc_second"], wire.ifindex, None)
    with pytest.raises(AttachConflict, match=r"interface near0 .* has a tc filter at priority 1 already"):
        attach_tc(tables.programs["tc_first"], wire.ifindex, pin=pin, force_clsact=True)
    assert filters(wire) == [(1, "tc_second")]
    assert not pin.exists()


def test_detaching_leaves_a_filter_that_took_our_place(tables: BpfObject, wire: Wire, pin: Path) -> None:
    ours = ClsactFilter.attach(tables.programs["tc_first"], wire.ifindex, pin)
    ClsactFilter(wire.ifindex, 0, None).update(tables.programs["tc_second"])
    assert not ours.info().attached
    assert not link_info(pin).attached
    open_link(pin).detach()
    assert filters(wire) == [(1, "tc_second")]
    assert not pin.exists()


def test_filters_of_others_beside_ours_stay(tables: BpfObject, wire: Wire, pin: Path) -> None:
    pinned = pin.with_name("theirs")
    pins.pin(tables.programs["tc_second"].fd, pinned)
    subprocess.run(["tc", "qdisc", "add", "dev", wire.near, "clsact"], check=True)
    theirs = ["tc", "filter", "add", "dev", wire.near, "ingress", "pref", "7", "bpf", "direct-action"]
    subprocess.run([*theirs, "pinned", pinned], check=True)
    link = ClsactFilter.attach(tables.programs["tc_first"], wire.ifindex, pin)
    assert [priority for priority, _ in filters(wire)] == [1, 7]
    link.detach()
    assert [priority for priority, _ in filters(wire)] == [7]


@pytest.mark.parametrize("moment", ["before it is attached", "after it is attached"])
@pytest.mark.parametrize("earlier", [False, True], ids=["first start", "restart"])
def test_killed_at_any_moment_the_next_start_goes_on(
    tables: BpfObject,
    wire: Wire,
    pin: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    earlier: bool,
) -> None:
    first, second = tables.programs["tc_first"], tables.programs["tc_second"]

    def kill(*_: object, **__: object) -> None:
        raise Killed

    if earlier:
        attach_tc(first, wire.ifindex, pin=pin, force_clsact=True)
    with monkeypatch.context() as patch:
        if moment == "before it is attached":
            patch.setattr(clsact, "_place", _place_until_attaching(kill))
        else:
            patch.setattr(Path, "rename", kill)
        with pytest.raises(Killed):
            attach_tc(second, wire.ifindex, pin=pin, force_clsact=True)
    if earlier:
        assert link_info(pin).attached
    attach_tc(first, wire.ifindex, pin=pin, force_clsact=True)
    assert filters(wire) == [(1, "tc_first")]
    open_link(pin).detach()
    assert filters(wire) == []
    assert not pin.exists()


def test_what_cannot_be_pinned_is_not_attached(tables: BpfObject, wire: Wire, tmp_path: Path) -> None:
    with pytest.raises(PinFailed, match="is not on a BPF file system"):
        ClsactFilter.attach(tables.programs["tc_first"], wire.ifindex, tmp_path / "off-bpffs")
    assert filters(wire) == []


def _place_until_attaching(kill: object) -> object:
    original = clsact._place

    def place(**fields: int) -> object:
        assert callable(kill)
        return kill() if fields else original()

    return place
