"""Clients that do not wait, do not listen, or stop half way."""

import asyncio
import socket
import struct

import pytest

from tests.dataplane.http.site import answer, ask, get, response, said, served
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import dial

CHUNKED = b"POST /here HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


@looped
async def test_what_follows_a_refused_request_is_answered_too() -> None:
    async with served(answer()) as (at, _):
        found = await ask(at, get("/other") + get() + get("/other") + get(), 4)
        assert [head.split(" ")[1] for head, _ in found] == ["404", "200", "404", "200"]


@looped
async def test_a_body_that_comes_with_the_head_of_a_refused_request_is_no_request() -> None:
    async with served(answer()) as (at, backend), dial(at.port) as (reader, writer):
        body = get()
        writer.write(
            f"POST /other HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        assert (await response(reader))[0].startswith("HTTP/1.1 404 ")
        assert await reader.read() == b""
        assert backend.heads == []


@looped
async def test_a_client_that_reads_nothing_has_no_more_answers_made() -> None:
    async with served(answer(bytes(1_000_000))) as (at, backend), dial(at.port) as (reader, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(get() * 200)
        [connection] = await _live(at)
        await until(lambda: connection._full)
        for _ in range(50):
            await asyncio.sleep(0)
        served_by_then = len(backend.heads)
        await asyncio.sleep(0.1)
        assert len(backend.heads) == served_by_then < 50
        assert connection.transport.get_write_buffer_size() < 3_000_000
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(200):
            assert len((await response(reader))[1]) == 1_000_000


@looped
async def test_what_is_sent_ahead_is_bounded() -> None:
    never = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(20):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer())
        await never.wait()

    async with served(serve=slow) as (at, _), dial(at.port) as (reader, writer):
        writer.write(get() * 200_000)
        [connection] = await _live(at)
        for _ in range(20):
            await response(reader)
        await until(lambda: connection._paused)
        assert len(connection._held) < 600_000


@looped
async def test_who_has_ended_its_side_gets_every_answer() -> None:
    async with served(answer()) as (at, _), dial(at.port) as (reader, writer):
        writer.write(get() * 5)
        writer.write_eof()
        found = [await response(reader) for _ in range(5)]
        assert [body for _, body in found] == [b"hello"] * 5
        assert [said(head, "connection") for head, _ in found] == [[]] * 4 + [["close"]]
        assert await reader.read() == b""
        await until(lambda: not at.admission._gate.inside)


@looped
async def test_broken_framing_in_the_middle_of_an_answer_ends_it_without_a_word() -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx")
        await reader.read()

    async with served(serve=early) as (at, _), dial(at.port) as (reader, writer):
        writer.write(CHUNKED + b"1\r\na\r\n")
        await reader.readuntil(b"\r\n\r\nx")
        writer.write(b"ZZ\r\n")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)


@looped
async def test_a_client_that_leaves_while_it_waits_is_noticed() -> None:
    left = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        left.set()

    async with served(serve=silent) as (at, _):
        async with dial(at.port) as (_, writer):
            writer.write(get())
            [connection] = await _live(at)
            await until(lambda: connection.exchange is not None and connection.exchange._upstream is not None)
            own = writer.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: left.is_set() and not at.admission._gate.inside)


@looped
async def test_an_answer_that_was_under_way_is_the_last_when_draining() -> None:
    gate = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
        await gate.wait()
        writer.write(b"b")

    async with served(serve=slow) as (at, _), dial(at.port) as (reader, writer):
        writer.write(get())
        await reader.readuntil(b"\r\n\r\na")
        at.admission._reads_http().drain()
        gate.set()
        assert await reader.read() == b"b"


@looped
async def test_trailers_are_no_way_around_what_heads_may_say() -> None:
    trailers = (
        b"X-Sum: 6\r\nX-MarchProxy-Service: admin\r\nHost: i\r\nContent-Length: 9\r\nX_Forwarded_For: 1\r\n"
    )
    got = asyncio.Queue[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        got.put_nowait(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer())

    async with served(serve=serve) as (at, _):
        await ask(at, CHUNKED + b"1\r\na\r\n0\r\n" + trailers + b"\r\n")
        assert await got.get() == b"1\r\na\r\n0\r\nx-sum: 6\r\n\r\n"


async def _live(at: object) -> list:  # type: ignore[type-arg]
    live = at.admission._reads_http().live  # type: ignore[attr-defined]
    await until(lambda: bool(live))
    return list(live)


@looped
async def test_who_speaks_tls_in_the_clear_does_not_wait_for_the_end_of_a_head() -> None:
    async with served(answer()) as (at, backend), dial(at.port) as (reader, writer):
        writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        assert (await response(reader))[0].startswith("HTTP/1.1 400 ")
        assert backend.heads == []


@looped
async def test_http2_is_not_begun_behind_a_request_that_named_no_host() -> None:
    async with served(answer()) as (at, _), dial(at.port) as (reader, writer):
        writer.write(b"GET /here HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await response(reader))[1] == b"hello"
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert (await response(reader))[0].startswith("HTTP/1.1 505 ")
        assert await reader.read() == b""
    await until(lambda: not at.admission._reads_http().live)
    # What the first one counted for has ended, too.
    await until(lambda: at.reasons()[-1][0] == "flow-end")
