"""pins: names on a BPF file system, and what can be wrong with them."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel import pins
from marchproxy.dataplane.kernel.errors import KernelError, PinFailed, PinMissing
from marchproxy.dataplane.kernel.links import attach_tc
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.pins import PinKind
from marchproxy.model.errors import Conflict

pytestmark = pytest.mark.requires("root", "bpf", "bpffs", "ringbuf", commands=["clang"])


def kind_at(path: Path) -> PinKind:
    fd, kind = pins.open_pin(path)
    os.close(fd)
    return kind


def test_a_map_and_a_program_are_told_apart(tables: BpfObject, bpffs: Path) -> None:
    pins.pin(tables.maps["hash"].fd, bpffs / "a")
    pins.pin(tables.programs["tc_first"].fd, bpffs / "b")
    assert (kind_at(bpffs / "a"), kind_at(bpffs / "b")) == (PinKind.MAP, PinKind.PROGRAM)


@pytest.mark.requires("tcx", "netns")
def test_a_link_is_recognized(tables: BpfObject, bpffs: Path, namespace: None) -> None:
    attach_tc(tables.programs["tc_first"], 1, pin=bpffs / "link").close()
    assert kind_at(bpffs / "link") is PinKind.LINK


def test_directories_are_made_for_their_owner(tables: BpfObject, bpffs: Path) -> None:
    pins.pin(tables.maps["hash"].fd, bpffs / "one" / "two" / "hash")
    assert (bpffs / "one").stat().st_mode & 0o777 == 0o700
    assert (bpffs / "one" / "two").stat().st_mode & 0o777 == 0o700


def test_a_dot_in_the_name_is_refused_in_words(tables: BpfObject, bpffs: Path) -> None:
    """The kernel says EPERM, and an operator would look for capabilities."""
    with pytest.raises(PinFailed, match=r"eth0\.100: a BPF file system allows no dot in a name"):
        pins.pin(tables.maps["hash"].fd, bpffs / "eth0.100")


def test_a_name_is_taken_once(tables: BpfObject, bpffs: Path) -> None:
    pins.pin(tables.maps["hash"].fd, bpffs / "a")
    with pytest.raises(KernelError) as raised:
        pins.pin(tables.maps["lru"].fd, bpffs / "a")
    assert raised.value.errno == errno.EEXIST


def test_what_is_missing_or_something_else(tables: BpfObject, bpffs: Path) -> None:
    with pytest.raises(PinMissing, match="nothing is pinned at"):
        pins.open_pin(bpffs / "a")
    pins.pin(tables.maps["hash"].fd, bpffs / "a")
    with pytest.raises(PinFailed, match="a holds a bpf-map, not a bpf-prog"):
        pins.open_pin_of(bpffs / "a", PinKind.PROGRAM)


def test_an_ordinary_file_is_no_pin(tmp_path: Path, tables: BpfObject) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KernelError, match="cannot open the pin"):
        pins.open_pin(tmp_path / "file")
    with pytest.raises(PinFailed, match="is not on a BPF file system"):
        pins.pin(tables.maps["hash"].fd, tmp_path / "a")


def test_a_file_where_a_directory_should_be(tables: BpfObject, bpffs: Path) -> None:
    pins.pin(tables.maps["hash"].fd, bpffs / "a")
    with pytest.raises(PinFailed, match="cannot create"):
        pins.make_pin_directory(bpffs / "a" / "b")


def test_a_directory_is_locked_by_one_at_a_time(bpffs: Path) -> None:
    held = pins.lock_directory(bpffs)
    with pytest.raises(Conflict, match="another daemon works with what is pinned here"):
        pins.lock_directory(bpffs)
    os.close(held)
    os.close(pins.lock_directory(bpffs))


def test_the_usual_place_is_mounted_where_nobody_has() -> None:
    """As on a machine without systemd, in a mount namespace of its own."""
    script = (
        "from pathlib import Path; from marchproxy.dataplane.kernel import libbpf, pins; "
        "assert not libbpf.on_bpffs(pins.STANDARD); "
        "pins.make_pin_directory(pins.STANDARD / 'mounted'); "
        "assert libbpf.on_bpffs(pins.STANDARD / 'mounted')"
    )
    hidden = f'mount -t tmpfs none /sys/fs && mkdir {pins.STANDARD} && exec {sys.executable} -c "{script}"'
    subprocess.run(["unshare", "--mount", "sh", "-c", hidden], check=True)
