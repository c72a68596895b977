"""addresses: those that an interface is known by, and no others."""

import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.kernel.addresses import OwnAddresses, interface_addresses, messages, read_address
from rig import Rig


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(clients=2) as made:
        made.middle.ip(
            "address add 10.1.0.9/24 dev inside0",
            "address add 192.0.2.1/32 dev inside0",
            "address add fd01::9/64 dev inside0 preferred_lft 0 nodad",
            "address flush dev inside1",
        )
        yield made


@pytest.mark.requires("root", "netns", "veth", "ipv6")
def test_primary_global_addresses_by_interface(rig: Rig) -> None:
    def ask() -> dict[str, OwnAddresses]:
        found = interface_addresses()
        return {name: found[number] for number, name in socket.if_nameindex() if number in found}

    found = rig.middle.call(ask)
    assert [str(each) for each in found["inside0"].v4] == ["10.1.0.1", "192.0.2.1"]
    assert [str(each) for each in found["inside0"].v6] == ["fd01::1"], "fd01::9 is deprecated"
    assert found["outside0"].of(4) == (ip_address("10.2.0.1"),)
    assert found["outside0"].of(6) == (ip_address("fd02::1"),)
    assert "inside1" not in found
    assert "lo" not in found


def answer(
    flags: int = 0, scope: int = 0, *attributes: tuple[int, bytes], family: int = socket.AF_INET
) -> bytes:
    body = struct.pack("=BBBBI", family, 24, flags & 0xFF, scope, 7)
    for kind, value in attributes:
        body += struct.pack("=HH", 4 + len(value), kind) + value.ljust((len(value) + 3) & ~3, b"\0")
    return body


LOCAL, PEER = (2, bytes((10, 0, 0, 1))), (1, bytes((10, 0, 0, 2)))


def test_own_end_of_a_point_to_point_link_counts() -> None:
    assert read_address(answer(0, 0, PEER, LOCAL)) == (7, ip_address("10.0.0.1"))
    assert read_address(answer(0, 0, PEER)) == (7, ip_address("10.0.0.2"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        answer(0, 253, LOCAL),
        answer(0, 254, LOCAL),
        answer(1, 0, LOCAL),
        answer(0, 0, LOCAL, (8, struct.pack("=I", 0x40))),
        answer(0, 0),
        answer(0, 0, (2, b"abc")),
        answer(0, 0, LOCAL, family=10),
        answer(0, 0)[:8] + b"\x02\x00\x02\x00",
    ],
    ids=["nothing", "link", "host", "secondary", "tentative", "none", "short", "family", "attribute"],
)
def test_what_no_one_should_know_us_by(body: bytes) -> None:
    assert read_address(body) is None


def test_broken_datagrams_end() -> None:
    assert list(messages(b"\0" * 32)) == []
    assert list(messages(b"abc")) == []
    whole = struct.pack("=IHHII", 18, 20, 0, 0, 0) + b"xy"
    assert list(messages(whole + b"\0\0" + whole)) == [(20, b"xy"), (20, b"xy")]
