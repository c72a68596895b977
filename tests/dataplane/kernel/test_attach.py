"""attach: `detach` takes out what is ours, and nothing else."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from marchproxy import bpf
from marchproxy.dataplane.kernel import location, pins
from marchproxy.dataplane.kernel.attach import detach_all, detach_others
from marchproxy.dataplane.kernel.forwarding import Forwarding
from marchproxy.dataplane.kernel.interfaces import Attachments
from marchproxy.dataplane.kernel.links import LinkKind, attach_tc
from marchproxy.dataplane.kernel.loading import Pipeline, load_pipeline
from marchproxy.dataplane.kernel.lookup import Lookup
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.sysctls import Sysctls
from marchproxy.model.entities import Interface, Mode, Role
from marchproxy.model.errors import NotPermitted
from tests.dataplane.kernel.support import Wire, ip

NEEDS = ("root", "bpf", "bpffs", "ringbuf", "netns", "veth", "tcx", "xdp", "xdp-native", "ipv6")


@pytest.fixture
def places(bpffs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this appliance pins."""
    monkeypatch.setenv("MARCHPROXY_BPFFS", str(bpffs / "mp"))
    monkeypatch.setenv("MARCHPROXY_RUNTIME_DIR", str(tmp_path / "run"))
    return bpffs / "mp"


@pytest.fixture
def pipeline(places: Path) -> Iterator[Pipeline]:
    made = load_pipeline(location.pin_directory())
    yield made
    made.close()


def attach(pipeline: Pipeline, *wanted: Interface) -> None:
    forwarding = Forwarding(Sysctls(location.sysctl_record()))
    made = Attachments(
        pipeline.programs, pipeline.maps["interfaces"], location.link_directory(), forwarding, lambda: None
    )
    made.want(wanted)
    assert not [state.problem for state in made.states if state.problem]


@pytest.mark.requires(*NEEDS)
def test_everything_goes_and_is_named(places: Path, pipeline: Pipeline, wire: Wire) -> None:
    ip("link", "set", wire.near, "down")
    ip("link", "set", wire.near, "name", "near.10")
    attach(pipeline, Interface("near.10", Role.INSIDE, Mode.XDP))
    said = detach_all()
    assert said[:2] == ["tc program on near.10", "xdp program on near.10"]
    assert said[2].endswith(f"maps (v{bpf.ABI}), with their flows")
    assert said[3:] == [
        "setting net/ipv4/conf/near.10/forwarding (0 again)",
        "setting net/ipv6/conf/near.10/accept_ra (1 again)",
        "setting net/ipv6/conf/near.10/forwarding (0 again)",
    ]
    assert not places.exists()
    shown = subprocess.run(
        ["ip", "link", "show", "near.10"], capture_output=True, text=True, check=True
    ).stdout
    assert "xdp" not in shown
    assert detach_all() == []


@pytest.mark.requires(*NEEDS)
def test_pins_of_an_interface_that_is_gone(places: Path, pipeline: Pipeline, wire: Wire) -> None:
    attach(pipeline, Interface(wire.near, Role.INSIDE))
    wire.cut()
    assert f"tc program on {wire.near}" in detach_all()
    assert not places.exists()


@pytest.mark.requires(*NEEDS, "clsact")
def test_programs_in_a_tc_filter(places: Path, pipeline: Pipeline, wire: Wire) -> None:
    pin = location.link_directory() / "tc-near0"
    link = attach_tc(pipeline.programs.tc, wire.ifindex, pin=pin, force_clsact=True)
    assert link.info().kind is LinkKind.CLSACT
    assert "tc program on near0" in detach_all()
    assert not link.info().attached
    assert not places.exists()


@pytest.mark.requires(*NEEDS)
def test_every_version_goes(places: Path, pipeline: Pipeline) -> None:
    pins.pin(pipeline.maps["settings"].fd, places / "v999" / "settings")
    said = detach_all()
    assert [line.partition(" ")[0] for line in said] == [str(len(pipeline_names())), "1"]
    assert not places.exists()


@pytest.mark.requires(*NEEDS)
def test_of_others_goes_what_nobody_runs(places: Path, pipeline: Pipeline) -> None:
    for name in ("v998", "v999"):
        pins.pin(pipeline.maps["settings"].fd, places / name / "settings")
    running = pins.lock_directory(places / "v998")
    assert detach_others() == ["1 maps (v999), with their flows"]
    assert sorted(path.name for path in places.iterdir()) == [f"v{bpf.ABI}", "v998"]
    os.close(running)
    assert detach_others() == ["1 maps (v998), with their flows"]
    assert detach_others() == []


def pipeline_names() -> set[str]:
    with BpfObject.load(bpf.OBJECTS / "tc.bpf.o") as loaded:
        return {name for name in loaded.maps if not name.startswith(".")}


@pytest.mark.requires(*NEEDS)
def test_what_somebody_else_pinned_beside_ours_stays(places: Path, pipeline: Pipeline) -> None:
    pins.pin(pipeline.maps["settings"].fd, places / "theirs" / "map")
    pins.pin(pipeline.maps["settings"].fd, places / "loose")
    detach_all()
    assert (places / "theirs" / "map").exists()
    assert (places / "loose").exists()
    assert not location.pin_directory().exists()


def test_a_folder_that_is_on_no_bpf_file_system_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "v1" / "precious"
    precious.parent.mkdir()
    precious.touch()
    monkeypatch.setenv("MARCHPROXY_BPFFS", str(tmp_path))
    monkeypatch.setenv("MARCHPROXY_RUNTIME_DIR", str(tmp_path))
    assert detach_all() == []
    assert precious.exists()


def test_nothing_was_ever_attached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARCHPROXY_BPFFS", str(tmp_path / "nowhere"))
    monkeypatch.setenv("MARCHPROXY_RUNTIME_DIR", str(tmp_path))
    assert detach_all() == []


def test_who_may_not_look_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A BPF file system is for root to read: that is no reason to say that there is nothing."""

    def refuse(path: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setenv("MARCHPROXY_BPFFS", str(tmp_path))
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(NotPermitted, match=f"cannot remove {tmp_path}") as refused:
        detach_all()
    assert refused.value.hint == "run: sudo marchproxy detach"


@pytest.mark.requires(*NEEDS, "sk_lookup")
def test_the_look_up_of_shared_sockets_goes_too(places: Path, namespace: None) -> None:
    shared = Lookup(location.lookup_directory())
    assert shared.ready()
    shared.close()
    assert "look-up of listeners that share a socket" in detach_all()
    assert not places.exists()
