"""loading: one set of maps for both programs, and a word for everything that can be in the way."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from marchproxy import bpf
from marchproxy.dataplane.kernel import features, loading, pins
from marchproxy.dataplane.kernel.errors import (
    KernelError,
    LibbpfMissing,
    NotSupported,
    ObjectInvalid,
    PinFailed,
)
from marchproxy.dataplane.kernel.features import Answer
from marchproxy.dataplane.kernel.loading import READ_OR_WRITTEN, BpfNotPermitted, Pipeline, load_pipeline
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.settings import Settings
from marchproxy.model.errors import Conflict
from tests.dataplane.kernel.conversations import Conversation
from tests.dataplane.kernel.support import run_with_capabilities

pytestmark = pytest.mark.requires("root", "bpf", "bpffs", "ringbuf")

OBJECTS = ("tc.bpf.o", "xdp.bpf.o", "handoff.bpf.o")


@pytest.fixture
def load(bpffs: Path) -> Iterator[Callable[..., Pipeline]]:
    """`load_pipeline` with pins of the test's own."""
    opened: list[Pipeline] = []

    def loaded(objects: Path = bpf.OBJECTS, flow_table: int = 4096) -> Pipeline:
        opened.append(load_pipeline(bpffs / "mp" / "v1", objects, flow_table=flow_table))
        return opened[-1]

    yield loaded
    for each in opened:
        each.close()


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    """A copy of the compiled objects, to damage."""
    folder = tmp_path / "objects"
    folder.mkdir()
    for name in OBJECTS:
        shutil.copy(bpf.OBJECTS / name, folder)
    return folder


@pytest.fixture
def nothing_left(bpffs: Path) -> Iterator[None]:
    """Neither pins nor file descriptors."""
    before = descriptors()
    yield
    assert not (bpffs / "mp").exists()
    assert descriptors() == before


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def pinned(bpffs: Path) -> set[str]:
    return {path.name for path in (bpffs / "mp" / "v1").iterdir()}


def test_maps_are_pinned_and_taken_over(load: Callable[..., Pipeline], bpffs: Path) -> None:
    first = load()
    assert first.maps.keys() == READ_OR_WRITTEN
    assert pinned(bpffs) > READ_OR_WRITTEN, "the programs have maps for themselves"
    Settings(first.maps["settings"]).change(revision=9)
    first.close()
    assert Settings(load().maps["settings"]).revision == 9


def test_flow_table_is_as_large_as_asked_for_and_keeps_its_size_and_flows(
    load: Callable[..., Pipeline],
) -> None:
    first = load(flow_table=2048)
    assert first.maps["flows"].max_entries == 2048
    made = Conversation().put(first.maps["flows"])
    first.close()
    again = load(flow_table=8192)
    assert again.maps["flows"].max_entries == 2048
    assert again.programs.xdp.name == "marchproxy_xdp"
    assert again.maps["flows"].get(made.key)


def test_both_programs_share_the_maps(load: Callable[..., Pipeline], bpffs: Path) -> None:
    pipeline = load()
    before = pinned(bpffs)
    assert pipeline.programs.xdp is pipeline.programs.xdp
    assert pinned(bpffs) == before


def test_only_what_is_used_is_kept_open(load: Callable[..., Pipeline]) -> None:
    load().close()
    before = descriptors()
    pipeline = load()
    own = len(READ_OR_WRITTEN) + 2
    assert descriptors() - before == own, "maps, a program and the lock"
    assert pipeline.programs.xdp.name == "marchproxy_xdp"
    assert descriptors() - before == own + 1
    pipeline.close()
    assert descriptors() == before


def test_one_daemon_to_a_set_of_pins(load: Callable[..., Pipeline], bpffs: Path) -> None:
    """Two with different runtime folders would write the same maps, each by what it believes is in them."""
    first = load()
    before = descriptors(), pinned(bpffs)
    with pytest.raises(Conflict, match="another daemon works with what is pinned here"):
        load()
    assert (descriptors(), pinned(bpffs)) == before
    first.close()
    first.close()
    load()


def test_an_object_that_is_missing(load: Callable[..., Pipeline], tmp_path: Path, nothing_left: None) -> None:
    with pytest.raises(ObjectInvalid, match=r"cannot read the BPF object .*tc.bpf.o") as refused:
        load(tmp_path)
    assert "built or installed" in refused.value.hint


def test_an_object_that_is_broken(load: Callable[..., Pipeline], objects: Path, nothing_left: None) -> None:
    (objects / "tc.bpf.o").write_bytes(b"not an object")
    with pytest.raises(ObjectInvalid, match="tc is not a BPF object"):
        load(objects)


@pytest.mark.requires(commands=["clang"])
def test_an_object_of_something_else(
    load: Callable[..., Pipeline], objects: Path, tables_object: Path, nothing_left: None
) -> None:
    shutil.copy(tables_object, objects / "tc.bpf.o")
    with pytest.raises(ObjectInvalid, match="the object has no map 'flows'"):
        load(objects)


def test_an_object_with_another_program(
    load: Callable[..., Pipeline], objects: Path, nothing_left: None
) -> None:
    shutil.copy(objects / "xdp.bpf.o", objects / "tc.bpf.o")
    with pytest.raises(ObjectInvalid, match="the BPF object tc lacks marchproxy_tc") as refused:
        load(objects)
    assert "install MarchProxy again" in refused.value.hint


def test_xdp_that_is_broken_is_noticed_by_who_wants_it(load: Callable[..., Pipeline], objects: Path) -> None:
    (objects / "xdp.bpf.o").unlink()
    pipeline = load(objects)
    with pytest.raises(ObjectInvalid, match=r"xdp.bpf.o"):
        _ = pipeline.programs.xdp


def test_an_upgrade_below_a_daemon_that_runs_changes_none_of_its_programs(
    load: Callable[..., Pipeline], objects: Path
) -> None:
    """What is loaded at first use is what was there when it started."""
    pipeline = load(objects)
    for name in OBJECTS:
        (objects / name).write_bytes(b"of another version")
    assert pipeline.programs.xdp.name == "marchproxy_xdp"
    pipeline.load_handoff().close()
    pipeline.load_rehearsal().close()


@pytest.mark.requires(commands=["clang"])
def test_maps_of_another_version(load: Callable[..., Pipeline], bpffs: Path, tables_object: Path) -> None:
    pin = bpffs / "mp" / "v1" / "flows"
    with BpfObject.load(tables_object) as theirs:
        pins.pin(theirs.maps["hash"].fd, pin)
    before = descriptors()
    with pytest.raises(KernelError, match="pinned map 'flows' does not fit this version: ") as refused:
        load()
    assert not isinstance(refused.value, BpfNotPermitted)
    assert refused.value.hint.startswith("run: marchproxy detach")
    assert pinned(bpffs) == {"flows"}
    assert descriptors() == before


def test_an_earlier_daemon_s_maps_survive_a_failure(
    load: Callable[..., Pipeline], objects: Path, bpffs: Path
) -> None:
    load().close()
    before = pinned(bpffs)
    (objects / "tc.bpf.o").write_bytes(b"not an object")
    with pytest.raises(ObjectInvalid):
        load(objects)
    assert pinned(bpffs) == before


def test_no_bpf_file_system(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(PinFailed, match="is not on a BPF file system") as refused:
        load_pipeline(tmp_path / "mp" / "v1")
    assert refused.value.hint
    assert list(tmp_path.iterdir()) == []
    assert descriptors() == before


def test_no_libbpf(
    load: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch, nothing_left: None
) -> None:
    def missing() -> None:
        raise LibbpfMissing("libbpf.so.1 cannot be loaded", hint="install the package libbpf1")

    monkeypatch.setattr(loading, "library", missing)
    with pytest.raises(BpfNotPermitted, match="cannot be loaded") as refused:
        load()
    assert refused.value.hint == "install the package libbpf1"


@pytest.mark.parametrize("feature", ["bpf", "ring_buffer", "loops"])
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer("the thing", False, "5.17", "not in this kernel"), "has no the thing; programs need kernel"),
        (Answer("the thing", False, "", "CAP_BPF missing"), "the thing cannot be used: CAP_BPF missing"),
        (Answer("the thing", None, "5.17", "a reason"), "the thing cannot be used: a reason"),
    ],
)
def test_a_kernel_without(
    load: Callable[..., Pipeline],
    feature: str,
    answer: Answer,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    nothing_left: None,
) -> None:
    """Nothing is loaded for the verifier to refuse: what it says of a whole pipeline explains nothing."""
    monkeypatch.setattr(features, feature, lambda: answer)
    monkeypatch.setattr(BpfObject, "load", pytest.fail)
    with pytest.raises(BpfNotPermitted, match=words):
        load()


def test_what_shows_only_while_loading(
    load: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch, nothing_left: None
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotSupported("cannot load tc: Operation not supported")

    monkeypatch.setattr(BpfObject, "load", refuse)
    with pytest.raises(BpfNotPermitted, match="cannot load tc: Operation not supported"):
        load()


def test_without_capabilities(bpffs: Path) -> None:
    said = run_with_capabilities(
        "import sys\n"
        "from pathlib import Path\n"
        "from marchproxy.dataplane.kernel.loading import BpfNotPermitted, load_pipeline\n"
        "try: load_pipeline(Path(sys.argv[1]))\n"
        "except BpfNotPermitted as refused: print(refused.message)\n",
        bpffs / "mp" / "v1",
    )
    assert said.startswith("BPF cannot be used: not permitted: CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF missing")
    assert not (bpffs / "mp").exists()
