"""Requests as bytes, and what is understood."""

from collections.abc import AsyncGenerator
from contextlib import suppress
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.control.http1 import (
    HttpError,
    Request,
    Response,
    body_length,
    parse_head,
    render_chunk,
    render_head,
)


def head(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def test_a_request_is_read_whole() -> None:
    request = parse_head(head("GET /v1/flows?limit=5&source=10.0.0.0%2F8 HTTP/1.1", "Host: x", "X-Y:  z\t"))
    assert request == Request(
        "GET", "/v1/flows", {"limit": "5", "source": "10.0.0.0/8"}, {"host": "x", "x-y": "z"}
    )


@pytest.mark.parametrize(
    ("lines", "keep_alive", "chunked"),
    [
        (("GET / HTTP/1.1",), True, True),
        (("GET / HTTP/1.1", "Connection: close"), False, True),
        (("GET / HTTP/1.1", "Connection: Keep-Alive, Close"), False, True),
        (("GET / HTTP/1.0",), False, False),
    ],
)
def test_whether_the_connection_lives_on(lines: tuple[str, ...], keep_alive: bool, chunked: bool) -> None:
    request = parse_head(head(*lines))
    assert (request.keep_alive, request.chunked) == (keep_alive, chunked)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (("",), 400),
        (("GET /",), 400),
        (("GET  / HTTP/1.1",), 400),
        (("get / HTTP/1.1",), 400),
        (("GET / HTTP/2.0",), 505),
        (("GET / ICY/1.0",), 505),
        (("GET http://evil/ HTTP/1.1",), 400),
        (("GET //evil/ HTTP/1.1",), 400),
        (("OPTIONS * HTTP/1.1",), 400),
        (("GET / HTTP/1.1", "no colon"), 400),
        (("GET / HTTP/1.1", "Name : value"), 400),
        (("GET / HTTP/1.1", "Folded: value", " more"), 400),
        (("GET / HTTP/1.1", "Bell: \x07"), 400),
        (("GET /?a=1&a=2 HTTP/1.1",), 400),
        (("GET /?" + "&".join(f"p{number}=1" for number in range(100)) + " HTTP/1.1",), 400),
        (("GET /\xe4 HTTP/1.1",), 400),
        (("GET / HTTP/1.1", "Content-Length: 1", "Content-Length: 2"), 400),
        (("GET / HTTP/1.1", *(f"H{number}: 1" for number in range(65))), 431),
    ],
)
def test_a_malformed_request_is_refused(lines: tuple[str, ...], status: int) -> None:
    with pytest.raises(HttpError) as caught:
        parse_head(head(*lines))
    assert caught.value.status == status


@given(st.binary(max_size=300))
def test_no_bytes_lead_to_anything_but_a_request_or_a_refusal(data: bytes) -> None:
    with suppress(HttpError):
        assert parse_head(data + b"\r\n\r\n").path.startswith("/")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Content-Length: -1", 400),
        ("Content-Length: ten", 400),
        ("Content-Length: 1e3", 400),
        ("Content-Length: " + "9" * 400, 400),
        ("Content-Length: 101", 413),
        ("Transfer-Encoding: chunked", 501),
    ],
)
def test_a_body_of_unclear_or_excessive_length_is_refused(header: str, status: int) -> None:
    request = parse_head(head("POST / HTTP/1.1", header))
    with pytest.raises(HttpError) as caught:
        body_length(request, 100)
    assert caught.value.status == status


def test_a_body_has_the_length_it_says() -> None:
    assert body_length(parse_head(head("POST / HTTP/1.1")), 100) == 0
    assert body_length(parse_head(head("POST / HTTP/1.1", "Content-Length: 100")), 100) == 100


def test_a_response_says_how_long_it_is() -> None:
    response = Response(b"{}", status=HTTPStatus.NOT_FOUND, headers={"Allow": "GET"})
    assert render_head(response, keep_alive=True, chunked=True) == (
        b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nAllow: GET\r\nContent-Length: 2\r\n\r\n"
    )


async def _nothing() -> AsyncGenerator[bytes]:
    yield b""


def test_a_response_without_a_known_length_is_chunked_or_ends_the_connection() -> None:
    response = Response(_nothing())
    assert b"Transfer-Encoding: chunked\r\n" in render_head(response, keep_alive=False, chunked=True)
    plain = render_head(response, keep_alive=False, chunked=False)
    assert b"Transfer-Encoding" not in plain
    assert b"Connection: close\r\n" in plain


def test_chunks_say_their_size_in_hexadecimal() -> None:
    assert render_chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert render_chunk(b"") == b"0\r\n\r\n"
