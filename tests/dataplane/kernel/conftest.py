"""Compiled test programs, a BPF file system and a network of one's own.

Nothing of the machine's is touched: the file system is a fresh mount, the namespace has no name, and both are
gone when the test is.
"""

import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel.objects import BpfObject
from tests.dataplane.kernel.support import Compile, Wire, ip

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="session")
def compile_bpf(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    folder = tmp_path_factory.mktemp("bpf")
    # Debian keeps <asm/types.h> in a folder named after the machine, where `-target bpf` does not look.
    include = [f"-I{asm.parent}" for asm in Path("/usr/include").glob(f"{platform.machine()}-linux-gnu*/asm")]

    def compiled(source: Path) -> Path:
        target = folder / source.with_suffix(".o").name
        flags = ["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3", *include]
        subprocess.run(["clang", *flags, "-c", source, "-o", target], check=True)
        return target

    return compiled


@pytest.fixture(scope="session")
def tables_object(compile_bpf: Compile) -> Path:
    return compile_bpf(PROGRAMS / "tables.bpf.c")


@pytest.fixture(scope="session")
def rejected_object(compile_bpf: Compile) -> Path:
    return compile_bpf(PROGRAMS / "rejected.bpf.c")


@pytest.fixture
def tables(tables_object: Path) -> Iterator[BpfObject]:
    """The maps and programs of `programs/tables.bpf.c`, fresh."""
    with BpfObject.load(tables_object) as loaded:
        yield loaded


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    """A BPF file system of the test's own: what it pins can neither meet nor outlive anything."""
    mounted = tmp_path / "bpffs"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", mounted], check=True)
    try:
        yield mounted
    finally:
        subprocess.run(["umount", mounted], check=True)


@pytest.fixture
def namespace() -> Iterator[None]:
    """A network namespace without a name, entered by this thread alone; it vanishes when it is left."""
    with open("/proc/self/ns/net") as outside:
        os.unshare(os.CLONE_NEWNET)
        try:
            ip("link", "set", "lo", "up")
            yield
        finally:
            os.setns(outside.fileno(), os.CLONE_NEWNET)


@pytest.fixture
def wire(namespace: None) -> Wire:
    laid = Wire()
    laid.lay()
    return laid
