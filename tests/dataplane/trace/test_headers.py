"""headers: what BCC finds in the place of a kernel's sources."""

import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel.structs import kernel_types
from marchproxy.dataplane.trace import headers
from marchproxy.dataplane.trace.headers import namespace_number, write_headers
from marchproxy.dataplane.trace.scope import Scope

pytestmark = pytest.mark.requires("btf")


def test_every_offset_that_the_programs_read_is_told(tmp_path: Path) -> None:
    from marchproxy.dataplane.trace.tracing import PROGRAMS

    write_headers(tmp_path, kernel_types(), namespace=4026531840, rate=7)
    told = (tmp_path / "include" / "kernel.h").read_text()
    read = {name for path in PROGRAMS.iterdir() for name in re.findall(r"\bOFFSET_\w+", path.read_text())}
    assert read == set(re.findall(r"\bOFFSET_\w+", told))
    assert "#define NAMESPACE 4026531840u\n" in told
    assert "#define RATE 7ull\n" in told
    assert "#define EVERYTHING 1\n" in told


def test_maps_are_as_large_as_what_is_looked_at(tmp_path: Path) -> None:
    scope = Scope(
        services=frozenset(map(ip_network, ("10.0.0.0/24", "10.0.1.0/24"))), pins=Path("/pins"), daemon=9
    )
    write_headers(tmp_path, kernel_types(), namespace=1, rate=7, scope=scope)
    told = (tmp_path / "include" / "kernel.h").read_text()
    assert "EVERYTHING" not in told
    assert "#define SERVICES 2\n" in told
    assert "#define PLACES 1\n" in told
    assert "#define DAEMON 9u\n" in told
    assert '#define PINS "/pins"\n' in told


@pytest.mark.parametrize(
    ("release", "code"),
    [("6.18.44", 0x06122C), ("6.1.0-18-amd64", 0x060100), ("5.15.300+", 0x050FFF), ("7", 0x070000)],
)
def test_versions_as_the_kernel_counts_them(release: str, code: int) -> None:
    assert f"#define LINUX_VERSION_CODE {code}\n" in headers._version(release)


def test_namespace_is_the_one_of_the_process() -> None:
    assert namespace_number() == Path("/proc/self/ns/net").stat().st_ino
    assert namespace_number("self") == namespace_number()
