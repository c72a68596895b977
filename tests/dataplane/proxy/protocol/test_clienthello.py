"""The first message of a TLS client."""

from collections.abc import Sequence

import pytest
from hypothesis import given

from marchproxy.dataplane.proxy.protocol.clienthello import MAX_HELLO, ClientHelloReader, Hello, NotTls
from tests.dataplane.proxy.protocol.conversation import cut, near, single
from tests.dataplane.proxy.protocol.hellos import (
    extension,
    hello,
    message,
    names,
    real_hello,
    records,
    vector,
)

ALPN = extension(16, vector(2, vector(1, b"h2"), vector(1, b"http/1.1")))
VERSIONS = extension(43, vector(1, b"\x7a\x7a", b"\x03\x04", b"\x03\x03"))
ECH = extension(0xFE0D, bytes(200))
KEY_SHARES = extension(
    51, vector(2, b"\x11\xec" + vector(2, bytes(1216)), b"\x00\x1d" + vector(2, bytes(32)))
)
BROWSER = (names(b"Example.COM"), ALPN, VERSIONS, ECH, KEY_SHARES)
FOUND = Hello("example.com", ("h2", "http/1.1"), True, (0x7A7A, 0x0304, 0x0303))


def read(*pieces: bytes) -> Hello | NotTls | None:
    reader = ClientHelloReader()
    for piece in pieces:
        found = reader.feed(piece)
        if found is not None:
            return found
    return None


def test_openssl_is_understood() -> None:
    found = read(real_hello("www.example.com", ["h2", "http/1.1"]))
    assert isinstance(found, Hello)
    assert (found.server_name, found.alpn, found.ech) == ("www.example.com", ("h2", "http/1.1"), False)
    assert 0x0304 in found.versions
    nameless = read(real_hello(None))
    assert isinstance(nameless, Hello)
    assert (nameless.server_name, nameless.alpn) == (None, ())


@pytest.mark.parametrize("size", [1, 2, 3, 100, 16_384])
def test_a_large_hello_may_be_cut_into_records_and_segments(size: int) -> None:
    whole = records(message(*BROWSER), size)
    assert read(whole) == FOUND
    assert read(*single(whole)) == FOUND
    assert read(whole[:-1]) is None


def test_what_comes_behind_the_hello_is_not_looked_at() -> None:
    assert read(hello(*BROWSER) + b"\x17\x03\x03\x00\x01x") == FOUND
    assert read(records(message(*BROWSER) + b"\x00")) == FOUND


def test_a_hello_without_extensions_is_one() -> None:
    bare = b"\x01" + vector(3, b"\x03\x01" + bytes(32) + vector(1) + vector(2, b"\0\x2f") + vector(1, b"\0"))
    assert read(records(bare)) == Hello(None, (), False, (0x0301,))


@pytest.mark.parametrize("address", [b"192.0.2.1", b"2001:db8::1"])
def test_an_address_is_no_name(address: bytes) -> None:
    found = read(hello(names(address)))
    assert isinstance(found, Hello)
    assert found.server_name is None


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", b"\x80\x2e\x01", b"\x16\x02"])
def test_other_protocols_are_not_tls(data: bytes) -> None:
    found = read(data)
    assert isinstance(found, NotTls)
    assert not found.broken


BROKEN = [
    b"\x16\x03\x01\x00\x00",
    b"\x16\x03\x01\x40\x01",
    b"\x16\x03\x01\xff\xff",
    records(b"\x02\x00\x00\x00"),
    records(b"\x01" + (MAX_HELLO + 1).to_bytes(3)),
    records(b"\x01\x00\x00\x00"),
    records(message(*BROWSER), 50)[:55] + b"\x17\x03\x03\x00\x01x",
    records(message(*BROWSER), 50)[:55] + b"\x16\x02",
    records(message(behind=b"x")),
    records(message(b"\x00")),
    hello(names(b"a"), names(b"a")),
    hello(ECH, ECH),
    hello(names(b"a", b"b")),
    hello(names()),
    hello(names(b"a", kind=1)),
    hello(names(b"")),
    hello(names(b"a b")),
    hello(names(b"a\0.example.com")),
    hello(names(b"*.example.com")),
    hello(names(b"\xc3\xbc.example.com")),
    hello(names(b"127.1")),
    hello(names(b"[::1]")),
    hello(extension(0, b"")),
    hello(extension(0, vector(2, b"\0" + vector(2, b"a")) + b"x")),
    hello(extension(16, vector(2, b"\x05h2"))),
    hello(extension(16, vector(2, vector(1, b"h2")) + b"x")),
    hello(extension(43, vector(1, b"\x03"))),
]


@pytest.mark.parametrize("data", BROKEN, ids=[data[:60].hex() for data in BROKEN])
def test_what_a_server_might_take_in_another_way_is_broken(data: bytes) -> None:
    found = read(data)
    assert isinstance(found, NotTls)
    assert found.broken
    assert read(*single(data)) == found


SEEDS: Sequence[bytes] = [hello(*BROWSER), records(message(*BROWSER), 7), hello(names(b"a")), hello()]


@given(cut(near(SEEDS)))
def test_it_is_the_same_in_any_pieces(pieces: list[bytes]) -> None:
    assert read(*pieces) == read(b"".join(pieces))
