"""natports: the host's own sockets keep off the ports of flows."""

import socket
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel.natports import EPHEMERAL, RESERVED, NatPorts, keep_apart
from marchproxy.dataplane.kernel.sysctls import Sysctls

PORTS = NatPorts(20000, 100)


@pytest.fixture
def sysctls(namespace: None, tmp_path: Path) -> Sysctls:
    """Of a network namespace."""
    return Sysctls(tmp_path / "sysctls.json")


def write(name: str, value: str) -> None:
    Path("/proc/sys", name).write_text(value)


def test_the_range() -> None:
    assert (str(PORTS), PORTS.last) == ("20000-20099", 20099)
    assert NatPorts().last < 32768


@pytest.mark.requires("root", "netns")
@pytest.mark.parametrize(
    ("ephemeral", "reserved", "expected"),
    [
        ("32768 60999", "", ""),
        ("1024 19999", "", ""),
        ("20100 60999", "80", "80"),
        ("1024 60999", "", "20000-20099"),
        ("20099 60999", "", "20000-20099"),
        ("1024 20000", "8080,9000-9010", "8080,9000-9010,20000-20099"),
        ("1024 60999", "20050-20200", "20000-20200"),
        ("1024 60999", "19000-21000", "19000-21000"),
    ],
)
def test_reserving(sysctls: Sysctls, ephemeral: str, reserved: str, expected: str) -> None:
    write(EPHEMERAL, ephemeral)
    write(RESERVED, f"{reserved}\n")
    keep_apart(PORTS, sysctls)
    assert sysctls.read(RESERVED) == expected
    keep_apart(PORTS, sysctls)
    assert sysctls.read(RESERVED) == expected
    sysctls.restore()
    assert sysctls.read(RESERVED) == reserved


@pytest.mark.requires("root", "netns")
def test_local_sockets_then_get_others(sysctls: Sysctls) -> None:
    write(EPHEMERAL, "20000 20109")
    keep_apart(PORTS, sysctls)
    with socket.socket() as given, socket.socket() as asked:
        given.bind(("127.0.0.1", 0))
        assert given.getsockname()[1] > PORTS.last
        asked.bind(("127.0.0.1", PORTS.first))
