"""Challenges: the whole path of a token is answered, nothing else is, and nobody keeps others waiting."""

import socket
from contextlib import AbstractContextManager, suppress

import pytest

from marchproxy.client import acmeresponder
from marchproxy.client.acmeresponder import PREFIX, HttpAnswers, answering, listening
from marchproxy.client.asking import SourceFailed
from marchproxy.model.endpoint import Endpoint, parse_endpoint


def answers_at(place: Endpoint) -> AbstractContextManager[HttpAnswers]:
    return answering(HttpAnswers(), listening(place))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture(name="place")
def _place() -> Endpoint:
    return parse_endpoint(f"127.0.0.1:{free_port()}")


def connected(place: Endpoint) -> socket.socket:
    return socket.create_connection(("127.0.0.1", place.port), 10)


def told(place: Endpoint, request: bytes) -> bytes:
    """All that comes back."""
    with connected(place) as sock:
        sock.sendall(request)
        return drained(sock)


def drained(sock: socket.socket) -> bytes:
    """What comes until the end, which may be a hard one."""
    said = b""
    with suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            said += piece
    return said


def pour(sock: socket.socket) -> None:
    """Send without end, as far as we go."""
    for _ in range(10_000):
        sock.sendall(b"x" * 4096)


def test_a_token_is_answered_by_its_whole_path(place: Endpoint) -> None:
    with answers_at(place) as answers:
        answers.give("www.example", "token_1", "token_1.thumb")
        said = told(place, f"GET {PREFIX}token_1 HTTP/1.1\r\nHost: www.example\r\n\r\n".encode())
        assert said.startswith(b"HTTP/1.1 200 OK\r\n")
        assert said.endswith(b"\r\n\r\ntoken_1.thumb")
    with pytest.raises(ConnectionRefusedError):
        connected(place)


@pytest.mark.parametrize(
    "line",
    [
        f"GET {PREFIX}token_2 HTTP/1.1",
        f"GET {PREFIX} HTTP/1.1",
        f"GET {PREFIX}../acme-challenge/token_1 HTTP/1.1",
        f"GET {PREFIX}./token_1 HTTP/1.1",
        f"GET {PREFIX}..%2f..%2f..%2fetc%2fpasswd HTTP/1.1",
        f"GET {PREFIX}../../../etc/passwd HTTP/1.1",
        f"GET {PREFIX}token_1%00 HTTP/1.1",
        f"GET {PREFIX}token_1?x HTTP/1.1",
        f"GET /{PREFIX}token_1 HTTP/1.1",
        f"GET http://www.example{PREFIX}token_1 HTTP/1.1",
        f"POST {PREFIX}token_1 HTTP/1.1",
        f"CONNECT {PREFIX}token_1 HTTP/1.1",
        f"GET  {PREFIX}token_1 HTTP/1.1",
        f"GET {PREFIX}token_1",
        "GET / HTTP/1.1",
        "\x16\x03\x01",
    ],
)
def test_nothing_else_is_answered(place: Endpoint, line: str) -> None:
    with answers_at(place) as answers:
        answers.give("www.example", "token_1", "token_1.thumb")
        said = told(place, f"{line}\r\nHost: www.example\r\n\r\n".encode("latin-1"))
        assert said.startswith(b"HTTP/1.1 404 ")
        assert b"thumb" not in said


def test_an_endless_request_is_ended(place: Endpoint) -> None:
    with answers_at(place), connected(place) as sock, pytest.raises(OSError, match=r"reset|pipe"):
        pour(sock)


def test_who_says_nothing_is_let_go_and_keeps_nobody_waiting(
    place: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acmeresponder, "PATIENCE", 0.5)
    with answers_at(place) as answers, connected(place) as idle:
        answers.give("www.example", "t", "t.thumb")
        assert told(place, f"GET {PREFIX}t HTTP/1.0\r\n\r\n".encode()).endswith(b"t.thumb")
        assert drained(idle) == b""


def test_more_than_so_many_are_closed_at_once(place: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acmeresponder, "MOST", 1)
    with answers_at(place), connected(place) as first:
        first.sendall(b"GET ")
        assert told(place, b"") == b""


def test_an_address_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = parse_endpoint(f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(SourceFailed, match="Address already in use"), answers_at(place):
            pass


def test_every_address_is_both_families_s() -> None:
    place = parse_endpoint(f"*:{free_port()}")
    with answers_at(place):
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, place.port), 10).close()
