"""objects: from a compiled file to maps and programs, with sizes and pins; and every way to refuse."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from marchproxy.dataplane.kernel import libbpf, objects, pins
from marchproxy.dataplane.kernel.errors import (
    KernelError,
    MapLayoutChanged,
    ObjectInvalid,
    PinFailed,
    PinMissing,
    ProgramRejected,
)
from marchproxy.dataplane.kernel.maptypes import MapType
from marchproxy.dataplane.kernel.objects import BpfObject, open_pinned_map
from marchproxy.dataplane.kernel.testrun import run
from tests.dataplane.kernel.support import FRAME, Compile

pytestmark = pytest.mark.requires("root", "bpf", "ringbuf", "bpffs", commands=["clang"])

KEY, VALUE = b"\x01" + bytes(7), b"\x02" + bytes(7)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_maps_and_programs_by_their_names_in_c(tables: BpfObject) -> None:
    assert tables.maps.keys() == {
        *(
            "hash",
            "lru",
            "trie",
            "array",
            "percpu_array",
            "percpu_hash_with_a_long_name",
            "devices",
            "events",
        ),
        ".rodata",
    }
    assert tables.maps["lru"].type is MapType.LRU_HASH
    assert tables.programs.keys() == {
        *("xdp_first", "xdp_second", "tc_first", "tc_second", "tc_report", "neither_xdp_nor_tc"),
    }


def test_loads_from_bytes(tables_object: Path) -> None:
    with BpfObject.load(tables_object.read_bytes()) as loaded:
        loaded.maps["hash"].set(KEY, VALUE)
        assert loaded.maps["hash"].get(KEY) == VALUE


def test_close_gives_everything_back(tables_object: Path) -> None:
    before = open_descriptors()
    loaded = BpfObject.load(tables_object)
    assert open_descriptors() == before + len(loaded.maps) + len(loaded.programs)
    loaded.close()
    loaded.close()
    assert open_descriptors() == before


def test_sizes_are_the_caller_s(tables_object: Path) -> None:
    with BpfObject.load(tables_object, max_entries={"hash": 1000, "events": 3000}) as loaded:
        assert loaded.maps["hash"].max_entries == 1000
        assert loaded.maps["events"].max_entries == 4096, "a ring buffer takes a power of two of pages"
        assert loaded.maps["lru"].max_entries == 128


def test_pins_every_map_but_variables(tables_object: Path, bpffs: Path) -> None:
    directory = bpffs / "marchproxy" / "v1"
    with BpfObject.load(tables_object, pin_dir=directory) as loaded:
        assert set(os.listdir(directory)) == loaded.maps.keys() - {".rodata"}
    assert directory.stat().st_mode & 0o777 == 0o700


def test_pins_only_the_maps_that_were_named(tables_object: Path, bpffs: Path) -> None:
    with BpfObject.load(tables_object, pin_dir=bpffs, pinned_maps={"hash", "events"}):
        assert set(os.listdir(bpffs)) - {"maps.debug", "progs.debug"} == {"hash", "events"}


def test_a_pinned_map_keeps_its_entries(tables_object: Path, bpffs: Path) -> None:
    with BpfObject.load(tables_object, pin_dir=bpffs) as first:
        first.maps["hash"].set(KEY, VALUE)
    with BpfObject.load(tables_object, pin_dir=bpffs) as second:
        assert second.maps["hash"].get(KEY) == VALUE
        assert second.maps["lru"].get(KEY) is None


def test_a_pinned_map_is_the_one_that_programs_use(tables_object: Path, bpffs: Path) -> None:
    """Not only looked at by us: the array counts what a program of the second load saw."""
    with (
        BpfObject.load(tables_object, pin_dir=bpffs) as first,
        BpfObject.load(tables_object, pin_dir=bpffs) as second,
    ):
        run(second.programs["tc_first"], FRAME)
        assert first.maps["array"].get(bytes(4)) == b"\x01" + bytes(7)


def test_open_pinned_map(tables_object: Path, bpffs: Path) -> None:
    with BpfObject.load(tables_object, pin_dir=bpffs, max_entries={"percpu_array": 3}):
        pass
    with open_pinned_map(bpffs / "percpu_array") as found:
        assert (found.name, found.type) == ("percpu_array", MapType.PERCPU_ARRAY)
        assert (found.key_size, found.value_size, found.max_entries) == (4, 4, 3)
    with pytest.raises(PinMissing, match="nothing is pinned at"):
        open_pinned_map(bpffs / "nothing")


def test_a_changed_layout_names_the_map_and_the_difference(
    tables_object: Path, compile_bpf: Compile, tmp_path: Path, bpffs: Path
) -> None:
    with BpfObject.load(tables_object, pin_dir=bpffs) as loaded:
        loaded.maps["hash"].set(KEY, VALUE)
    source = (Path(__file__).parent / "programs" / "tables.bpf.c").read_text()
    changed = tmp_path / "changed.bpf.c"
    changed.write_text(source.replace("__type(value, __u64);", "__type(value, __u64[2]);", 1))
    before = open_descriptors()
    with pytest.raises(
        MapLayoutChanged, match="'hash' does not fit this version: value size 8, wanted 16"
    ) as raised:
        BpfObject.load(compile_bpf(changed), pin_dir=bpffs)
    assert raised.value.map_name == "hash"
    assert raised.value.path == bpffs / "hash"
    assert open_descriptors() == before
    with open_pinned_map(bpffs / "hash") as kept:
        assert kept.get(KEY) == VALUE


def test_another_size_is_another_layout(tables_object: Path, bpffs: Path) -> None:
    with BpfObject.load(tables_object, pin_dir=bpffs):
        pass
    with pytest.raises(MapLayoutChanged) as raised:
        BpfObject.load(tables_object, pin_dir=bpffs, max_entries={"lru": 1000})
    assert raised.value.differences == ("max_entries 128, wanted 1000",)


def test_another_type_is_another_layout(tables: BpfObject, tables_object: Path, bpffs: Path) -> None:
    pins.pin(tables.maps["trie"].fd, bpffs / "hash")
    with pytest.raises(MapLayoutChanged) as raised:
        BpfObject.load(tables_object, pin_dir=bpffs)
    assert raised.value.differences == ("it is a LPM_TRIE, wanted HASH", "flags 1, wanted 0")


def test_a_pin_of_something_else(tables: BpfObject, tables_object: Path, bpffs: Path) -> None:
    pins.pin(tables.programs["tc_first"].fd, bpffs / "hash")
    with pytest.raises(PinFailed, match=r"hash holds a bpf-prog, not a bpf-map"):
        BpfObject.load(tables_object, pin_dir=bpffs)


def test_pins_need_a_bpf_file_system(tables_object: Path, tmp_path: Path) -> None:
    with pytest.raises(PinFailed, match="is not on a BPF file system") as raised:
        BpfObject.load(tables_object, pin_dir=tmp_path / "v1")
    assert "mount -t bpf" in raised.value.hint
    assert not (tmp_path / "v1").exists()


def test_a_rejected_program_says_why_and_leaves_nothing(rejected_object: Path, bpffs: Path) -> None:
    before = open_descriptors()
    with pytest.raises(ProgramRejected, match="verifier rejected program 'careless'") as raised:
        BpfObject.load(rejected_object, pin_dir=bpffs)
    assert "R0 invalid mem access 'map_value_or_null'" in raised.value.message
    assert "processed" not in raised.value.message
    assert "processed" in raised.value.log
    assert "numbers" not in os.listdir(bpffs)
    assert open_descriptors() == before


class Interrupted:
    """libbpf whose first loads are broken off, as by signals."""

    def __init__(self, times: int) -> None:
        self.left = times
        self._lib = libbpf.library()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lib, name)

    def bpf_object__load(self, handle: int) -> int:
        if self.left:
            self.left -= 1
            return -errno.EAGAIN
        return int(self._lib.bpf_object__load(handle))


def test_what_a_signal_breaks_off_begins_anew(
    tables_object: Path, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lib = Interrupted(objects.TRIES - 1)
    monkeypatch.setattr(objects, "library", lambda: lib)
    with BpfObject.load(tables_object, pin_dir=bpffs) as loaded:
        assert loaded.maps
        assert lib.left == 0
    lib.left = 2 * objects.TRIES
    with pytest.raises(KernelError) as broken_off:
        BpfObject.load(tables_object)
    assert broken_off.value.errno == errno.EAGAIN
    assert lib.left == objects.TRIES


def test_unknown_names_list_what_there_is(rejected_object: Path, bpffs: Path) -> None:
    with pytest.raises(ObjectInvalid, match="no map 'flows'") as raised:
        BpfObject.load(rejected_object, max_entries={"flows": 1})
    assert raised.value.hint == "it has: numbers"
    with pytest.raises(ObjectInvalid, match="no map 'flows'"):
        BpfObject.load(rejected_object, pin_dir=bpffs, pinned_maps=["flows"])


@pytest.mark.parametrize("content", [b"", b"no ELF file at all", b"\x7fELF" + bytes(60)])
def test_what_is_no_object(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.bpf.o"
    path.write_bytes(content)
    with pytest.raises(ObjectInvalid, match="broken is not a BPF object"):
        BpfObject.load(path)


def test_a_truncated_object(tables_object: Path) -> None:
    whole = tables_object.read_bytes()
    with pytest.raises(ObjectInvalid, match="object is not a BPF object"):
        BpfObject.load(whole[: len(whole) // 2])


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ObjectInvalid, match=r"cannot read the BPF object .*: No such file or directory"):
        BpfObject.load(tmp_path / "missing.bpf.o")
