"""Where one request ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.dataplane.proxy.protocol.http_body import (
    MAX_CHUNK_LINE,
    MAX_TRAILERS,
    Chunked,
    Counted,
    Switching,
    check_bodiless,
    read_body,
    wants_websocket,
)
from marchproxy.dataplane.proxy.protocol.http_head import Head
from tests.dataplane.proxy.protocol.conversation import cut, near, single


def head(*fields: tuple[str, str], method: str = "POST", version: str = "1.1") -> Head:
    return Head(method, "http://h/", version, fields)


UPGRADE = (("Connection", "Upgrade"), ("Upgrade", "websocket"))


def test_the_head_says_which_end_a_request_has() -> None:
    assert isinstance(read_body(head()), Counted)
    assert isinstance(read_body(head(("Content-Length", "7"))), Counted)
    assert isinstance(read_body(head(("Transfer-Encoding", "CHUNKED"))), Chunked)
    assert isinstance(read_body(head(*UPGRADE, method="GET")), Switching)


@pytest.mark.parametrize(
    "other",
    [
        head(*UPGRADE),
        head(*UPGRADE, method="GET", version="1.0"),
        head(*UPGRADE, ("Content-Length", "5"), method="GET"),
        head(*UPGRADE, ("Transfer-Encoding", "chunked"), method="GET"),
        head(("Upgrade", "websocket"), method="GET"),
        head(("Connection", "Upgrade"), ("Upgrade", "h2c, websocket"), method="GET"),
        head(("Connection", "Upgrade"), ("Upgrade", "h2c"), ("Upgrade", "websocket"), method="GET"),
    ],
)
def test_only_a_plain_get_becomes_a_websocket(other: Head) -> None:
    assert not wants_websocket(other)
    assert not isinstance(read_body(other), Switching)


def test_connect_may_say_that_it_has_no_body() -> None:
    check_bodiless(head(("Content-Length", "0")))
    for field in (("Content-Length", "1"), ("Content-Length", "x"), ("Transfer-Encoding", "chunked")):
        with pytest.raises(Unfit):
            check_bodiless(head(field))


@given(st.integers(0, 30), cut(st.binary(max_size=60)))
def test_a_counted_body_is_as_long_as_it_says(length: int, pieces: list[bytes]) -> None:
    body = Counted(length)
    assert b"".join(map(body.take, pieces)) == b"".join(pieces)[:length]
    body.answered(b"HTTP/1.1 101 \r\n")
    assert not body.free


CHUNKS = [
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b'A ;name="v";x\r\n0123456789\r\n00\r\nExpires: 0\r\nX:\r\n\r\n',
    b"0000003\r\n\r\n\n\r\n3\r\n0\r\n\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("chunks", CHUNKS)
def test_a_chunked_body_passes_whole_and_nothing_behind_it(chunks: bytes) -> None:
    assert Chunked().take(chunks + b"GET / HTTP/1.1\r\n") == chunks
    body = Chunked()
    pieces = single(chunks)
    assert b"".join(map(body.take, pieces)) == chunks
    assert body.take(b"0\r\n\r\n") == b""


@pytest.mark.parametrize(
    "broken",
    [
        b"\r\n",
        b"\n",
        b"5\nhello\r\n",
        b"0\n\r\n",
        b"0\r\n\n",
        b"5;a\nb\r\n",
        b"5;\0\r\n",
        b"5 \r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n",
        b"5_0\r\n",
        b"5\r\nhelloX\r\n",
        b"5\r\nhello\n",
        b"1" * 16 + b"\r\n",
        b"5;" + b"a" * MAX_CHUNK_LINE,
        b"0\r\nno colon\r\n",
        b"0\r\n folded: 1\r\n",
        b"0\r\nX : 1\r\n",
        b"0\r\n" + b"X: 12345\r\n" * (MAX_TRAILERS // 8 + 1),
    ],
)
def test_broken_framing_ends_it_in_whatever_pieces(broken: bytes) -> None:
    with pytest.raises(Unfit):
        Chunked().take(broken)
    assert passed(single(broken)) is None


def passed(pieces: list[bytes]) -> bytes | None:
    body = Chunked()
    try:
        return b"".join(map(body.take, pieces))
    except Unfit:
        return None


@given(cut(near(CHUNKS)))
def test_a_chunked_body_is_the_same_in_any_pieces(pieces: list[bytes]) -> None:
    assert passed(pieces) == passed([b"".join(pieces)])


@pytest.mark.parametrize(
    ("answer", "free"),
    [
        (b"HTTP/1.1 101 Switching Protocols\r\n", True),
        (b"HTTP/1.1 101\r\n", True),
        (b"HTTP/1.1 1010\r\n", False),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 \r\n", False),
        (b"HTTP/1.1 101", False),
    ],
)
def test_a_websocket_is_free_after_the_status_that_says_so(answer: bytes, free: bool) -> None:
    for pieces in ([answer], single(answer)):
        switching = Switching()
        for piece in pieces:
            switching.answered(piece)
        assert switching.free is free
