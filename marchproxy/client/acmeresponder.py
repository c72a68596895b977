"""Answers an ACME CA's challenges for as long as an order is under way: here those of the kind HTTP-01 (RFC
8555, section 8.3), in `acmetls` others.

It listens on port 80 where anybody may come, so it knows nothing but whole paths of tokens, which it compares
and never takes apart; it reads one short request of a connection, and not for long.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Protocol

from marchproxy.client.asking import SourceFailed
from marchproxy.model.endpoint import Endpoint

PREFIX = "/.well-known/acme-challenge/"
PATIENCE = 5.0
"""Seconds for one connection."""
MOST = 256
"""Connections at a time; more are closed at once. A CA comes from a handful of places."""
_LONGEST = 8192
_ENDS = b"\r\n\r\n"


class Answers(Protocol):
    """What is answered to whom."""

    kind: str
    """Of the challenges."""

    def give(self, host: str, token: str, authorization: str) -> None:
        """From now on, until the order is over. Raises `SourceFailed`."""

    async def converse(self, connection: socket.socket) -> None:
        """With one that has come; whoever calls this closes it. Raises `OSError`."""


class HttpAnswers:
    """`Answers` by token (HTTP-01)."""

    kind = "http-01"

    def __init__(self) -> None:
        self._by_path: dict[bytes, bytes] = {}

    def give(self, host: str, token: str, authorization: str) -> None:
        """See `Answers`."""
        self._by_path[(PREFIX + token).encode()] = authorization.encode()

    async def converse(self, connection: socket.socket) -> None:
        """See `Answers`."""
        loop = asyncio.get_running_loop()
        head = b""
        while _ENDS not in head and len(head) <= _LONGEST:
            piece = await loop.sock_recv(connection, _LONGEST)
            if not piece:
                return
            head += piece
        if _ENDS in head:
            await loop.sock_sendall(connection, self._answer(head))

    def _answer(self, head: bytes) -> bytes:
        match head.partition(b"\r\n")[0].split(b" "):
            case [b"GET", path, b"HTTP/1.1" | b"HTTP/1.0"] if path in self._by_path:
                return _response(b"200 OK", self._by_path[path])
        return _response(b"404 Not Found", b"")


type Take = Callable[[socket.socket], socket.socket]
"""The next connection, from a socket that has one. Raises `OSError`."""


def accepted(sock: socket.socket) -> socket.socket:
    """`Take` from one that listens."""
    return sock.accept()[0]


@contextmanager
def answering[A: Answers](
    answers: A, door: AbstractContextManager[socket.socket], take: Take = accepted
) -> Iterator[A]:
    """Whoever comes there meanwhile; the door is closed then. Raises `SourceFailed` where it stays shut."""
    with door as sock:
        loop = asyncio.new_event_loop()
        serving = loop.create_task(_serve(sock, take, answers))
        thread = threading.Thread(target=_run, args=(loop, serving), name="acme challenges", daemon=True)
        thread.start()
        try:
            yield answers
        finally:
            loop.call_soon_threadsafe(serving.cancel)
            thread.join()
            loop.close()


def listening(endpoint: Endpoint) -> socket.socket:
    """A port of our own. Raises `SourceFailed` where it cannot be listened at."""
    address = "::" if endpoint.address is None else str(endpoint.address)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server(
            (address, endpoint.port), family=family, backlog=MOST, dualstack_ipv6=endpoint.address is None
        )
    except OSError as error:
        raise SourceFailed(
            f"challenges cannot be answered at {endpoint}: {error.strerror}",
            hint="ss --listening --tcp --processes shows who has a port; below 1024 it needs the right to it",
        ) from None


def _run(loop: asyncio.AbstractEventLoop, serving: asyncio.Task[None]) -> None:
    asyncio.set_event_loop(loop)
    loop.run_until_complete(asyncio.wait([serving]))


async def _serve(sock: socket.socket, take: Take, answers: Answers) -> None:
    """Until it is cancelled; then every connection is closed."""
    loop = asyncio.get_running_loop()
    busy: set[asyncio.Task[None]] = set()

    def come() -> None:
        try:
            connection = take(sock)
        except OSError:
            return
        if len(busy) >= MOST:
            connection.close()
            return
        connection.setblocking(False)
        task = loop.create_task(_converse(connection, answers))
        busy.add(task)
        task.add_done_callback(lambda _: connection.close())
        task.add_done_callback(busy.discard)

    sock.setblocking(False)
    loop.add_reader(sock, come)
    try:
        await asyncio.Event().wait()
    finally:
        loop.remove_reader(sock)
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


async def _converse(connection: socket.socket, answers: Answers) -> None:
    with suppress(OSError):
        async with asyncio.timeout(PATIENCE):
            await answers.converse(connection)


def _response(status: bytes, body: bytes) -> bytes:
    return (
        b"HTTP/1.1 %b\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n"
        b"Connection: close\r\nX-Content-Type-Options: nosniff\r\n\r\n%b" % (status, len(body), body)
    )
