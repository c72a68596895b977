"""Connections to backends that are slow, break off, or never come to their answer."""

import asyncio
import socket
import struct
from contextlib import suppress

from marchproxy.dataplane.http.bodies import Counted
from marchproxy.dataplane.http.upstream import HIGH_WATER, Upstream
from tests.dataplane.http.site import answer, get, only, response, served
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import dial


@looped
async def test_a_connection_is_not_kept_deaf_because_its_client_was_slow() -> None:
    # The last piece of the answer is what fills the client's buffer.
    async with served(answer(bytes(30_000_000))) as (at, backend), dial(at.port) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(get())
        await until(lambda: len(backend.heads) == 1)
        connection = only(at)
        await until(lambda: connection._full)
        assert connection.exchange is not None
        upstream = connection.exchange._upstream
        assert isinstance(upstream, Upstream)
        assert not upstream.transport.is_reading()
        # As if all of the rest had come in one piece.
        assert isinstance(upstream._body, Counted)
        upstream._body.left = 1
        upstream.data_received(b"x")
        assert upstream.free
        assert upstream.transport.is_reading()


@looped
async def test_a_connection_that_has_not_taken_its_request_is_not_kept() -> None:
    taking = asyncio.Event()

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await taking.wait()
        writer.write(answer(b"early"))
        await asyncio.Event().wait()

    size = HIGH_WATER // 2
    async with served(serve=early) as (at, _), dial(at.port) as (reader, writer):
        writer.write(b"PUT /here HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
        await until(lambda: bool(at.admission._reads_http().live))
        connection = only(at)
        await until(lambda: connection.exchange is not None and connection.exchange._upstream is not None)
        assert connection.exchange is not None
        upstream = connection.exchange._upstream
        assert isinstance(upstream, Upstream)
        own = upstream.transport.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        writer.write(bytes(size))
        await until(lambda: connection._body is None)
        unsent = upstream.transport.get_write_buffer_size()
        taking.set()
        assert (await response(reader))[1] == b"early"
        if unsent:
            assert upstream.transport.is_closing()


@looped
async def test_a_reset_is_not_the_end_of_an_answer() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhalf")
        await asyncio.sleep(0.05)
        own = writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with served(serve=cut) as (at, _), dial(at.port) as (reader, writer):
        writer.write(get())
        await reader.readuntil(b"half\r\n")
        with suppress(ConnectionResetError):
            assert await reader.read() == b""


@looped
async def test_a_backend_that_never_comes_to_its_answer_is_given_up() -> None:
    async with (
        served(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000) as (at, _),
        dial(at.port) as (reader, writer),
    ):
        writer.write(get(version="1.0"))
        assert (await response(reader))[0].startswith("HTTP/1.1 502 ")


@looped
async def test_an_answer_without_carriage_returns_is_not_waited_for() -> None:
    async def bare(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n")
        await asyncio.Event().wait()

    async with served(serve=bare) as (at, _), dial(at.port) as (reader, writer):
        writer.write(get())
        assert (await response(reader))[0].startswith("HTTP/1.1 502 ")
