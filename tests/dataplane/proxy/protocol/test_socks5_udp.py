"""Datagrams of a SOCKS5 association."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.proxy.protocol.socks5_udp import (
    MAX_HEADER,
    Datagram,
    build_datagram,
    parse_datagram,
)

V4 = bytes.fromhex("000000 01 c0000201 0035")


def test_a_datagram_says_whom_it_is_for() -> None:
    assert parse_datagram(V4 + b"ask") == Datagram(ip_address("192.0.2.1"), 53, b"ask")
    domain = bytes.fromhex("000000 03 02") + b"nS\x00\x35"
    assert parse_datagram(domain) == Datagram("ns", 53, b"")


@given(st.ip_addresses(), st.integers(1, 65535), st.binary(max_size=40))
def test_an_answer_says_from_whom_it_came(
    source: IPv4Address | IPv6Address, port: int, payload: bytes
) -> None:
    built = build_datagram(source, port, payload)
    assert len(built) <= MAX_HEADER + len(payload)
    assert parse_datagram(built) == Datagram(source, port, payload)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        V4[:9],
        b"\0\0\1" + V4[3:] + b"a fragment",
        b"\0\0\x80" + V4[3:] + b"the last fragment",
        b"\1\0\0" + V4[3:],
        bytes.fromhex("000000 01 c0000201 0000") + b"port 0",
        bytes.fromhex("000000 02 c0000201 0035"),
        bytes.fromhex("000000 03 00 0035"),
        bytes.fromhex("000000 03 ff 61"),
    ],
)
def test_fragments_and_noise_are_dropped(data: bytes) -> None:
    assert parse_datagram(data) is None


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda data: bytes(3) + data))
def test_no_datagram_breaks_it(data: bytes) -> None:
    found = parse_datagram(data)
    assert found is None or data.endswith(found.payload)
