"""Servers that answer without end, a byte at a time, or not at all."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from marchproxy.client import asking
from marchproxy.client.asking import Server, SourceFailed


@contextmanager
def hostile(serve: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """A server of one connection, which ends at the latest with the test; its port."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                serve(connection, over)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            thread.join()


def dripping(connection: socket.socket, over: threading.Event) -> None:
    """Never silent for long, and never done."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while not over.wait(0.02):
        connection.sendall(b"x")


def informing(connection: socket.socket, over: threading.Event) -> None:
    """Always about to answer."""
    while not over.wait(0.02):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def pouring(connection: socket.socket, over: threading.Event) -> None:
    """More than anybody wants."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not over.is_set():
        connection.sendall(b" " * 65536)


@pytest.mark.parametrize("serve", [dripping, informing])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_answer_that_does_not_end_is_given_up(
    serve: Callable[[socket.socket, threading.Event], None], scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "WHOLE", 0.4)
    if scheme == "https":
        # A record of TLS that is announced and does not come.
        def serve(connection: socket.socket, over: threading.Event) -> None:
            connection.sendall(b"\x16\x03\x03\x40\x00")
            while not over.wait(0.02):
                connection.sendall(b"x")

    with hostile(serve) as port, pytest.raises(SourceFailed, match="no answer within 0 s"):
        Server(f"{scheme}://127.0.0.1:{port}", "").exchange("GET", "/", {})


def test_an_answer_that_is_too_long_is_none() -> None:
    with hostile(pouring) as port, pytest.raises(SourceFailed, match="longer than 1048576 bytes"):
        Server(f"http://127.0.0.1:{port}", "").exchange("GET", "/", {})


def refusing(connection: socket.socket, _: threading.Event) -> None:
    """In the clear."""
    connection.sendall(b"HTTP/1.1 400 Bad\r\n\r\n")


def test_no_tls_at_all_is_said() -> None:
    with hostile(refusing) as port, pytest.raises(SourceFailed, match=r"https://127\.0\.0\.1:\d+: "):
        Server(f"https://127.0.0.1:{port}", "").exchange("GET", "/", {})
