"""libbpf: layouts as the C compiler has them, a library that may be missing, and whose log is whose."""

import ctypes as ct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel import libbpf
from marchproxy.dataplane.kernel.errors import LibbpfMissing

HEADERS = "#include <stddef.h>\n#include <linux/bpf.h>\n#include <bpf/bpf.h>\n#include <bpf/libbpf.h>\n"

STRUCTS: dict[str, type[ct.Structure]] = {
    "bpf_object_open_opts": libbpf.ObjectOpenOptions,
    "bpf_link_create_opts": libbpf.LinkCreateOptions,
    "bpf_map_batch_opts": libbpf.BatchOptions,
    "bpf_xdp_query_opts": libbpf.XdpQueryOptions,
    "bpf_tc_hook": libbpf.TcHook,
    "bpf_tc_opts": libbpf.TcOptions,
    "bpf_test_run_opts": libbpf.TestRunOptions,
    "bpf_map_info": libbpf.MapInfo,
    "bpf_prog_info": libbpf.ProgramInfo,
    "bpf_link_info": libbpf.LinkInfo,
    "btf_type": libbpf.BtfType,
    "btf_var_secinfo": libbpf.BtfVariable,
    "xdp_md": libbpf.XdpContext,
    "__sk_buff": libbpf.SkbContext,
}
OTHER_NAMES = {
    # (struct, our name): the name in C; None for padding, bit fields, and what no code of ours reads.
    ("bpf_prog_info", "counts_of_btf"): None,
    ("bpf_prog_info", "pointers_of_btf"): None,
    ("bpf_prog_info", "gpl_compatible"): None,
    ("bpf_prog_info", "end"): None,
    ("bpf_link_info", "padding"): None,
    ("bpf_link_info", "ifindex"): "xdp.ifindex",
    ("bpf_link_info", "attach"): None,
}
WHOLE = {
    "bpf_map_batch_opts",
    "bpf_xdp_query_opts",
    "bpf_tc_hook",
    "bpf_tc_opts",
    "bpf_test_run_opts",
    "xdp_md",
}
"""Structs that are declared to their end."""


def layout_assertions() -> Iterator[str]:
    for name, struct in STRUCTS.items():
        for field, *_ in struct._fields_:
            in_c = OTHER_NAMES.get((name, field), field)
            if in_c is not None:
                offset = getattr(struct, field).offset
                yield f'_Static_assert(offsetof(struct {name}, {in_c}) == {offset}, "{name}.{field}");'
        if name in WHOLE:
            yield f'_Static_assert(sizeof(struct {name}) == {ct.sizeof(struct)}, "{name}");'


def compiles(source: str, folder: Path) -> str:
    """What the compiler has against it; empty when it compiles."""
    path = folder / "layouts.c"
    path.write_text(source)
    return subprocess.run(
        ["clang", "-fsyntax-only", "-I/usr/include", path], capture_output=True, text=True, check=False
    ).stderr


@pytest.mark.requires(commands=["clang"])
def test_structs_are_laid_out_as_in_c(tmp_path: Path) -> None:
    includes = HEADERS + "#include <linux/btf.h>\n"
    assert compiles(includes + "\n".join(layout_assertions()), tmp_path) == ""


@pytest.mark.requires(commands=["clang"])
def test_numbers_are_those_of_the_header(tmp_path: Path) -> None:
    numbers = {"BPF_XDP": libbpf.XDP}
    assertions = [f'_Static_assert({name} == {value}, "{name}");' for name, value in numbers.items()]
    assert compiles(HEADERS + "\n".join(assertions), tmp_path) == ""


def test_every_function_exists_in_this_libbpf() -> None:
    """Declared at first use, which is when a missing one would be found."""
    assert libbpf.library() is libbpf.library()
    assert libbpf.possible_cpus() >= 1


@pytest.fixture
def unloaded() -> Iterator[None]:
    libbpf.library.cache_clear()
    yield
    libbpf.library.cache_clear()


def test_a_missing_library_is_an_error_with_advice(unloaded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libbpf, "_SONAME", "libbpf.so.99")
    with pytest.raises(LibbpfMissing, match=r"libbpf\.so\.99 cannot be loaded") as raised:
        libbpf.library()
    assert "install the package libbpf1" in raised.value.hint


def test_one_that_we_bring_stands_in_for_it(
    unloaded: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = subprocess.check_output(["ldconfig", "-p"], text=True)
    [system, *_] = [line.split()[-1] for line in own.splitlines() if line.strip().startswith("libbpf.so.1 ")]
    (tmp_path / "libbpf").symlink_to(system)
    monkeypatch.setattr(libbpf, "_SONAME", "libbpf.so.99")
    monkeypatch.setattr(libbpf, "_BROUGHT", tmp_path / "libbpf")
    assert libbpf.library().libbpf_num_possible_cpus() > 0


def test_an_old_library_is_named_with_its_version(unloaded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libbpf, "_MINIMUM", (99, 0))
    with pytest.raises(LibbpfMissing, match=r"is version 1\.\d+, older than 99\.0"):
        libbpf.library()


def fail_to_open() -> None:
    assert not libbpf.library().bpf_object__open_mem(b"x", 1, None)


def test_messages_are_captured_only_when_asked_for() -> None:
    fail_to_open()
    with libbpf.captured_log() as outer:
        with libbpf.captured_log() as inner:
            fail_to_open()
        assert len(inner) == 1
        assert "is not a proper ELF object" in inner[0]
        assert outer == []
        fail_to_open()
    assert len(outer) == 1
    fail_to_open()
    assert len(outer) == 1


def test_each_thread_captures_its_own_messages() -> None:
    both_capture = threading.Barrier(2)
    counts: dict[int, int] = {}

    def work(failures: int) -> None:
        with libbpf.captured_log() as messages:
            both_capture.wait(timeout=10)
            for _ in range(failures):
                fail_to_open()
            both_capture.wait(timeout=10)
        counts[failures] = len(messages)

    threads = [threading.Thread(target=work, args=(failures,)) for failures in (3, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {3: 3, 50: 50}


@pytest.mark.requires("root", "bpffs")
def test_knows_a_bpf_file_system(bpffs: Path, tmp_path: Path) -> None:
    assert libbpf.on_bpffs(bpffs)
    assert not libbpf.on_bpffs(tmp_path)
    with pytest.raises(OSError, match="statfs failed"):
        libbpf.on_bpffs(tmp_path / "missing")
