"""Heads of responses."""

import pytest

from marchproxy.dataplane.http.bodies import Counted, Dechunked, UntilClose
from marchproxy.dataplane.http.responses import (
    MAX_HEAD,
    answer_length,
    body_again,
    phrase_of,
    read_response,
    write_response,
)
from marchproxy.dataplane.proxy.protocol.exchange import Unfit


def head(line: str, *fields: str) -> bytes:
    return "\r\n".join((line, *fields, "", "")).encode("latin-1")


@pytest.mark.parametrize(
    ("raw", "method", "length", "kind"),
    [
        (head("HTTP/1.1 200 OK", "Content-Length: 5"), "GET", 5, Counted),
        (head("HTTP/1.1 200 OK", "Content-Length: 5", "Content-Length: 5"), "GET", 5, Counted),
        (head("HTTP/1.1 200 OK", "Transfer-Encoding: Chunked"), "GET", None, Dechunked),
        (head("HTTP/1.1 200 OK"), "GET", None, UntilClose),
        (head("HTTP/1.1 200 OK", "Content-Length: 5"), "HEAD", 5, Counted),
        (head("HTTP/1.1 304 Not Modified", "Content-Length: 5"), "GET", 5, Counted),
        (head("HTTP/1.1 204"), "GET", None, Counted),
    ],
)
def test_where_it_ends(raw: bytes, method: str, length: int | None, kind: type) -> None:
    response, body = read_response(raw, method)
    assert response.length == length
    assert isinstance(body, kind)
    if isinstance(body, Counted):
        again = body_again(response)
        assert again.done is body.done


def test_what_a_client_gets() -> None:
    response, _ = read_response(
        head("HTTP/1.1 200 Fine", "Content-Length: 5", "X: y", "Connection: close"), "GET"
    )
    assert not response.keeps
    assert (
        write_response(response, "1.1", keeps=True)
        == b"HTTP/1.1 200 Fine\r\nx: y\r\ncontent-length: 5\r\n\r\n"
    )
    assert b"connection: close\r\n" in write_response(response, "1.1", keeps=False)
    assert b"connection: keep-alive\r\n" in write_response(response, "1.0", keeps=True)
    endless, _ = read_response(head("HTTP/1.1 200 OK"), "GET")
    assert b"transfer-encoding: chunked" in write_response(endless, "1.1", keeps=True)
    assert b"transfer-encoding" not in write_response(endless, "1.0", keeps=False)


def test_interim_answers() -> None:
    response, _ = read_response(head("HTTP/1.1 103 Early Hints", "Link: </a>"), "GET")
    assert response.interim
    assert write_response(response, "1.1", keeps=True) == b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    switching, _ = read_response(head("HTTP/1.1 101 X", "Upgrade: websocket"), "GET")
    assert not switching.interim
    assert b"upgrade: websocket\r\n" in write_response(switching, "1.1", keeps=True)


def test_words_for_statuses() -> None:
    assert (phrase_of(404), phrase_of(599)) == ("Not Found", "")


def test_how_long_a_head_is_and_that_bare_line_feeds_are_not_waited_for() -> None:
    whole = head("HTTP/1.1 200 OK", "X: y")
    assert answer_length(whole + b"body\n\n") == len(whole)
    assert all(answer_length(whole[:size]) is None for size in range(len(whole)))
    for bare in (b"HTTP/1.1 200 OK\nX: y\n\n", b"HTTP/1.1 200 OK\r\nX: y\n\r\n"):
        with pytest.raises(Unfit, match="ends without CR"):
            answer_length(bare)
    with pytest.raises(Unfit, match="over 65536 bytes"):
        answer_length(b"x" * (MAX_HEAD + 1))
    full = b"x" * (MAX_HEAD - 4) + b"\r\n\r\n"
    assert answer_length(full) == MAX_HEAD
    with pytest.raises(Unfit, match="over 65536 bytes"):
        answer_length(b"x" + full)
