"""The head of a request, read strictly."""

import pytest

from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.dataplane.proxy.protocol.http_head import (
    MAX_HEAD,
    MAX_LINE,
    Head,
    HttpUnfit,
    head_length,
    parse_head,
)

HEAD = b"GET http://h/ HTTP/1.1\r\nHost: h\r\nX-A:\r\nx-b: \t a \xfc, B\t \r\nX-B: c\r\n\r\n"


def test_a_head_is_read_as_it_stands() -> None:
    head = parse_head(HEAD)
    assert head == Head(
        "GET",
        "http://h/",
        "1.1",
        (("Host", "h"), ("X-A", ""), ("x-b", "a ü, B"), ("X-B", "c")),
    )
    assert (head.get("x-b"), head.get("x-c")) == ("a ü, B", None)
    assert head.words("x-b") == {"a ü", "b", "c"}
    assert head.words("x-a") == frozenset()


def test_its_end_is_found_in_whatever_pieces_it_comes() -> None:
    held = bytearray()
    for seen, byte in enumerate(HEAD):
        assert head_length(held, max(0, seen - 1)) is None
        held.append(byte)
    assert head_length(held, len(HEAD) - 1) == len(HEAD)
    assert head_length(bytearray(HEAD + b"more\r\n\r\n"), 0) == len(HEAD)


def test_limits_are_exact() -> None:
    line = b"GET " + b"a" * (MAX_LINE - 15) + b" HTTP/1.1\r\n"
    assert len(line) == MAX_LINE
    assert head_length(bytearray(line), 0) is None
    with pytest.raises(HttpUnfit, match="request line"):
        head_length(bytearray(b"a" + line), 0)
    full = line + b"x" * (MAX_HEAD - MAX_LINE - 4) + b"\r\n\r\n"
    assert head_length(bytearray(full), 0) == MAX_HEAD
    with pytest.raises(HttpUnfit, match="head"):
        head_length(bytearray(line + b"x" + full[MAX_LINE:]), 0)


@pytest.mark.parametrize(
    "line",
    [
        b"Host: i",
        b"host: h",
        b"Content_Length: 1",
        b" X: 1",
        b"\tX: 1",
        b"X : 1",
        b"X\t: 1",
        b": 1",
        b"X",
        b"X\xfc: 1",
        b"X: \x00",
        b"X: \x1b[0m",
        b"X: \x7f",
        b"X: a\rb",
        b"X: a\nb: c",
    ],
)
def test_headers_that_readers_disagree_about_are_refused(line: bytes) -> None:
    with pytest.raises(Unfit):
        parse_head(b"GET http://h/ HTTP/1.1\r\nHost: h\r\n" + line + b"\r\n\r\n")


@pytest.mark.parametrize("first", [b"\x16\x03\x01\x00\xa5", b"\0", b" ", b"\n", b"(", b"\xff", b"\x7f"])
def test_what_cannot_begin_a_request_is_refused_at_once(first: bytes) -> None:
    with pytest.raises(Unfit, match="the first line is not"):
        head_length(bytearray(first), 0)


@pytest.mark.parametrize("first", [b"", b"\r", b"\r\n", b"G", b"~"])
def test_what_can_is_waited_for(first: bytes) -> None:
    assert head_length(bytearray(first), 0) is None
