"""Requests that are asked again and are no exchanges, until something else happens to them than an answer."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from marchproxy.dataplane.http.client import ClientConnection
from tests.dataplane.admission.desk import LIMITS, Desk
from tests.dataplane.http.site import QUICK, answer, get, only, response, routed, said, served
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import dial

type Reader = asyncio.StreamReader
type Writer = asyncio.StreamWriter
type Then = Callable[[Reader, Writer], Awaitable[None]]
"""What a backend does with what is asked once more."""

USUAL = answer(b"usual")


@asynccontextmanager
async def repeating(
    then: Then, limits: Any = LIMITS, **fields: Any
) -> AsyncGenerator[tuple[Desk, Reader, Writer]]:
    """A client whose next request, `get()`, needs no exchange, and will find its backend doing `then`."""
    asked = 0

    async def serve(reader: Reader, writer: Writer) -> None:
        nonlocal asked
        while await reader.readuntil(b"\r\n\r\n"):
            asked += 1
            if asked == 4:
                await then(reader, writer)
            else:
                writer.write(USUAL)

    async with served(serve=serve, limits=limits, **fields) as (at, _), dial(at.port) as (reader, writer):
        # Who is told of requests wants them to be exchanges.
        at.admission._reads_http().site.ledger.wanted = frozenset()
        for _ in range(3):
            writer.write(get())
            assert (await response(reader))[1] == b"usual"
        yield at, reader, writer


async def under_way(at: Desk, writer: Writer) -> ClientConnection:
    """Have the client ask."""
    writer.write(get())
    connection = only(at)
    await until(lambda: connection._repeats is not None)
    assert connection._exchange is None
    return connection


class Held:
    """A backend that answers when it is let to."""

    def __init__(self, said: bytes = USUAL) -> None:
        self.go = asyncio.Event()
        self.said = said

    async def __call__(self, _: Reader, writer: Writer) -> None:
        await self.go.wait()
        writer.write(self.said)


def wire(head: bytes, *pieces: bytes) -> Then:
    async def then(_: Reader, writer: Writer) -> None:
        writer.write(head)
        for piece in pieces:
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.write(piece)

    return then


@looped
async def test_it_has_no_exchange_and_is_counted() -> None:
    held = Held()
    async with repeating(held) as (at, reader, writer):
        connection = await under_way(at, writer)
        held.go.set()
        assert (await response(reader))[1] == b"usual"
        assert connection._exchange is None
        [conversation] = connection.conversations
        assert (conversation.sent.packets, conversation.sent.bytes) == (4, 4 * len(get()))
        assert (conversation.received.packets, conversation.received.bytes) == (4, 20)


@looped
async def test_who_looks_at_it_makes_an_exchange_of_it() -> None:
    held = Held()
    async with repeating(held) as (at, reader, writer):
        connection = await under_way(at, writer)
        exchange = connection.exchange
        assert exchange is not None
        assert only(at).exchange is exchange
        assert len(exchange.id) == 32
        assert connection._repeats is None
        held.go.set()
        assert (await response(reader))[1] == b"usual"
        assert not only(at).busy
        [conversation] = connection.conversations
        assert (conversation.sent.packets, conversation.sent.bytes) == (4, 4 * len(get()))
        assert (conversation.received.packets, conversation.received.bytes) == (4, 20)
        writer.write(get())
        assert (await response(reader))[1] == b"usual"


@pytest.mark.parametrize(
    ("then", "status", "body"),
    [
        (wire(answer(b"other")), "200", b"other"),
        (wire(answer(b"longer than it was")), "200", b"longer than it was"),
        (wire(answer(b"usual", "404 Not Found")), "404", b"usual"),
        (wire(answer(b"usual", "503 Service Unavailable")), "503", b"usual"),
        (wire(USUAL[:-2], USUAL[-2:]), "200", b"usual"),
        (wire(USUAL[:9], USUAL[9:]), "200", b"usual"),
        (wire(b"HTTP/1.1 103 Early Hints\r\n\r\n" + USUAL), "103", b""),
        (
            wire(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nusual\r\n0\r\n\r\n"),
            "200",
            b"usual",
        ),
        (wire(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nusual"), "200", b"usual"),
        (wire(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), "502", None),
        (wire(b"HTTP/1.1 200 OK\nContent-Length: 5\n\nusual"), "200", b"usual"),
        (wire(USUAL + USUAL), "200", b"usual"),
    ],
)
@looped
async def test_another_answer_is_read(then: Then, status: str, body: bytes | None) -> None:
    async with repeating(then) as (_, reader, writer):
        writer.write(get())
        head, found = await response(reader)
        assert head.split(" ")[1] == status
        assert body is None or found == body
        if status == "103":
            assert (await response(reader))[1] == b"usual"
        # What came too much is nobody's answer.
        for _ in range(3):
            writer.write(get())
            assert (await response(reader))[1] == b"usual"


@looped
async def test_where_the_backend_ends_the_connection_it_is_asked_by_another() -> None:
    async def gone(_: Reader, writer: Writer) -> None:
        writer.transport.abort()

    async with repeating(gone) as (at, reader, writer):
        writer.write(get())
        assert (await response(reader))[1] == b"usual"
        assert only(at).exchange is None


@looped
async def test_a_backend_that_stays_silent_is_given_up() -> None:
    async with repeating(Held(), QUICK) as (at, reader, writer):
        connection = await under_way(at, writer)
        # As long ago as a backend may be silent.
        connection._since -= QUICK.silence
        connection.tick(time.monotonic())
        assert (await response(reader))[0].split(" ")[1] == "504"


@looped
async def test_what_is_asked_meanwhile_is_answered_next() -> None:
    held = Held()
    async with repeating(held) as (at, reader, writer):
        await under_way(at, writer)
        writer.write(get("/here/next") + get("/elsewhere") + get())
        await until(lambda: bool(only(at)._held))
        held.go.set()
        statuses = [(await response(reader))[0].split(" ")[1] for _ in range(4)]
        assert statuses == ["200", "200", "404", "200"]


@looped
async def test_two_in_one_piece_are_two() -> None:
    async with repeating(wire(USUAL)) as (_, reader, writer):
        writer.write(get() * 2)
        assert [(await response(reader))[1] for _ in range(2)] == [b"usual"] * 2


@looped
async def test_it_is_the_last_of_a_connection_that_is_drained() -> None:
    held = Held()
    async with repeating(held) as (at, reader, writer):
        (await under_way(at, writer)).drain()
        held.go.set()
        head, body = await response(reader)
        assert (said(head, "connection"), body) == (["close"], b"usual")
        assert await reader.read() == b""


@looped
async def test_another_plan_ends_it_or_lets_it_be() -> None:
    held = Held()
    async with repeating(held) as (at, reader, writer):
        connection = await under_way(at, writer)
        [port] = {connection._repeats.backend.port} if connection._repeats else set()
        at.apply(routed(at, port))
        held.go.set()
        assert (await response(reader))[1] == b"usual"
        held.go.clear()
        at.apply(routed(at, port, action="deny"))
        writer.write(get())
        assert (await response(reader))[0].split(" ")[1] == "403"
    held = Held()
    async with repeating(held) as (at, reader, writer):
        connection = await under_way(at, writer)
        [port] = {connection._repeats.backend.port} if connection._repeats else set()
        at.apply(routed(at, port, action="deny"))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await response(reader)


@looped
async def test_a_client_that_leaves_takes_the_connection_to_the_backend_with_it() -> None:
    async with repeating(Held()) as (at, _, writer):
        await under_way(at, writer)
        pool = at.admission._reads_http().site.pool
        assert len(pool._every) == 1
        own = writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await until(lambda: not pool._every and not at.admission._reads_http().live)


@looped
async def test_a_client_that_ends_its_side_is_answered() -> None:
    held = Held()
    async with repeating(held) as (at, reader, writer):
        connection = await under_way(at, writer)
        writer.write_eof()
        await until(lambda: connection._ended)
        held.go.set()
        assert (await response(reader))[1] == b"usual"
        assert await reader.read() == b""
