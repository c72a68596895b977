"""http: what is asked, and what counts as an answer."""

import pytest

from marchproxy.dataplane.health.http import HEAD_LIMIT, BadAnswer, StatusReader, request


@pytest.mark.parametrize(
    ("method", "path", "host", "port", "expected"),
    [
        ("http", "/", "10.0.0.1", 80, b"GET / HTTP/1.1\r\nHost: 10.0.0.1\r\n"),
        (
            "http",
            "/up?a=1&b=%20",
            "a.example.com",
            8080,
            b"GET /up?a=1&b=%20 HTTP/1.1\r\nHost: a.example.com:8080",
        ),
        ("https", "/", "fd00::1", 443, b"GET / HTTP/1.1\r\nHost: [fd00::1]\r\n"),
        ("https", "/", "fd00::1", 80, b"GET / HTTP/1.1\r\nHost: [fd00::1]:80\r\n"),
        ("http", "/grün#x", "10.0.0.1", 80, b"GET /gr%C3%BCn%23x HTTP/1.1\r\n"),
        ("http", "/\r\nX: y", "10.0.0.1", 80, b"GET /%0D%0AX:%20y HTTP/1.1\r\n"),
    ],
)
def test_request(method: str, path: str, host: str, port: int, expected: bytes) -> None:
    made = request(method, path, host, port)
    assert made.startswith(expected)
    assert made.endswith(b"Connection: close\r\n\r\n")


def status(*pieces: bytes) -> int | None:
    """What is known after the last piece."""
    reader, found = StatusReader(), None
    for piece in pieces:
        found = reader.feed(piece)
    return found


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n", 200),
        (b"HTTP/1.0 302\r\n", 302),
        (b"HTTP/1.1 503 Service Unavailable\r\nX: y\r\n\r\nbody", 503),
        (b"HTTP/1.1 204\n", 204),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", 200),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 500 Oh\r\n", 500),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n", None),
        (b"HTTP/1.1 20", None),
        (b"", None),
    ],
)
def test_status_however_it_arrives(answer: bytes, expected: int | None) -> None:
    assert status(answer) == expected
    if expected is not None:
        reader = StatusReader()
        found = (reader.feed(answer[at : at + 1]) for at in range(len(answer)))
        assert next((each for each in found if each is not None), None) == expected


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2 200\r\n",
        b"HTTP/1.1 2000 OK\r\n",
        b"HTTP/1.1 099 no\r\n",
        b"HTTP/1.1 -20 no\r\n",
        b"HTTP/1.1\r\n",
        b"\r\n",
        b"\x16\x03\x01\n",
    ],
)
def test_what_is_not_http(answer: bytes) -> None:
    with pytest.raises(BadAnswer, match="the answer is not HTTP/1"):
        status(answer)


@pytest.mark.parametrize("piece", [b"x" * 1000, b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["a line", "heads"])
def test_an_answer_without_end_is_given_up_on(piece: bytes) -> None:
    with pytest.raises(BadAnswer, match="no HTTP status within 16384 bytes"):
        status(*[piece] * (HEAD_LIMIT // len(piece) + 2))
