"""The PROXY protocol, in and out."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.proxy.protocol.proxyprotocol import (
    MAX_V1,
    MAX_V2,
    Ends,
    Header,
    NotProxy,
    ProxyProtocolReader,
    build_v1,
    build_v2,
)
from tests.dataplane.proxy.protocol.conversation import cut, near, single

V2 = b"\r\n\r\n\0\r\nQUIT\n"
V4 = Ends(ip_address("192.0.2.1"), 4711, ip_address("198.51.100.2"), 443)
V6 = Ends(ip_address("2001:db8::1"), 0, ip_address("2001:db8::2"), 65535)
V4_ADDRESSES = bytes.fromhex("c0000201 c6336402 1267 01bb")


def read(*pieces: bytes) -> Header | NotProxy | None:
    """What is said, with all that comes later behind it."""
    reader = ProxyProtocolReader()
    for index, piece in enumerate(pieces):
        found = reader.feed(piece)
        if isinstance(found, Header):
            return Header(found.ends, found.rest + b"".join(pieces[index + 1 :]))
        if found is not None:
            return found
    return None


def test_the_examples_of_the_specification_are_written_so() -> None:
    assert build_v1(V4) == b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n"
    assert build_v1(V6) == b"PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n"
    assert build_v1(None) == b"PROXY UNKNOWN\r\n"
    assert build_v2(V4) == V2 + b"\x21\x11\x00\x0c" + V4_ADDRESSES
    assert build_v2(None) == V2 + b"\x20\x00\x00\x00"


ADDRESSES = st.ip_addresses().filter(lambda address: address.version == 4 or address.ipv4_mapped is None)
PORTS = st.integers(0, 65535)
ENDS = st.none() | st.builds(Ends, ADDRESSES, PORTS, ADDRESSES, PORTS)


@given(ENDS, st.binary(max_size=20))
def test_what_is_written_is_read(ends: Ends | None, rest: bytes) -> None:
    """Also with ends of two families."""
    for build in (build_v1, build_v2):
        assert read(build(ends) + rest) == Header(ends, rest)


@pytest.mark.parametrize(
    ("data", "header"),
    [
        (b"PROXY UNKNOWN ffff::1 whatever\r\nGET", Header(None, b"GET")),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 4711 443\r\n\r\n", Header(V4, b"\r\n")),
        (V2 + b"\x21\x11\x00\x10" + V4_ADDRESSES + b"\x04\x00\x01xGET", Header(V4, b"GET")),
        (V2 + b"\x20\x11\x00\x0c" + V4_ADDRESSES + b"GET", Header(None, b"GET")),
        (V2 + b"\x20\xff\x00\x01xGET", Header(None, b"GET")),
        (V2 + b"\x21\x00\x00\x03abcGET", Header(None, b"GET")),
        (V2 + b"\x21\x11\x02\x08" + V4_ADDRESSES + bytes(MAX_V2 - 28) + b"GET", Header(V4, b"GET")),
    ],
)
def test_every_form_of_a_header_is_understood(data: bytes, header: Header) -> None:
    assert read(data) == header
    assert read(*single(data)) == header


NASTY = [
    b"GET / HTTP/1.1\r\n",
    b"PROXY\r\n",
    b"proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n",
    b"PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 1 -2\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 1 \xb2\r\n",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
    b"PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
    b"PROXY TCP6 fe80::1%1 fe80::2 1 2\r\n",
    b"PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"PROXY UNKNOWN " + b"x" * MAX_V1 + b"\r\n",
    V2 + b"\x11\x11\x00\x0c" + V4_ADDRESSES,
    V2 + b"\x22\x11\x00\x0c" + V4_ADDRESSES,
    V2 + b"\x21\x12\x00\x0c" + V4_ADDRESSES,
    V2 + b"\x21\x31\x00\xd8" + bytes(216),
    V2 + b"\x21\x11\x00\x0b" + V4_ADDRESSES,
    V2 + b"\x21\x21\x00\x0c" + V4_ADDRESSES,
    V2 + b"\x21\x11\x02\x09" + bytes(521),
    V2 + b"\x20\x00\xff\xff",
]


@pytest.mark.parametrize("data", NASTY, ids=[repr(data[:60]) for data in NASTY])
def test_any_other_beginning_is_refused(data: bytes) -> None:
    found = read(data)
    assert isinstance(found, NotProxy)
    assert read(*single(data)) == found


def test_it_never_waits_for_more_than_the_longest_header() -> None:
    assert read(b"PROXY UNKNOWN " + b"x" * (MAX_V1 - 15)) is None
    assert isinstance(read(b"PROXY UNKNOWN " + b"x" * (MAX_V1 - 14)), NotProxy)
    assert read(V2 + b"\x20\x00\x02\x08" + bytes(519)) is None


SEEDS = [build_v1(V4), build_v1(V6), build_v1(None), build_v2(V4), build_v2(V6), build_v2(None)]


@given(cut(st.binary(max_size=60) | near(SEEDS)))
def test_it_is_the_same_in_any_pieces(pieces: list[bytes]) -> None:
    assert read(*pieces) == read(b"".join(pieces))
