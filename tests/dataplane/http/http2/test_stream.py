"""One stream of a client's connection: bodies, windows, and how it ends."""

import asyncio
import hashlib
import os
from dataclasses import replace

import pytest
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from marchproxy.dataplane.http.http2.link import CONNECTION_WINDOW, HIGH, LINGER, STREAM_WINDOW
from tests.dataplane.http.http2.peer import client, codes
from tests.dataplane.http.http2.test_client import only2
from tests.dataplane.http.site import QUICK, answer, served
from tests.dataplane.loops import looped, until


@looped
async def test_a_client_that_takes_nothing_is_not_held_for() -> None:
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(65_536))
            await writer.drain()
            sent += 65_536

    async with served(serve=endless, limits=replace(QUICK, silence=0.3)) as (at, _), client(at.port) as peer:
        peer.takes = False
        number = peer.ask()
        await peer.heard(number)
        stream = only2(at).streams[number]
        await until(lambda: stream.out.full)
        assert only2(at).held < HIGH + 256 * 1024
        await asyncio.sleep(0.4)
        at.admission._reads_http().tick()
        assert (await peer.hear(number)).reset == ErrorCodes.CANCEL
        assert only2(at).held == 0


@looped
async def test_a_window_opens_only_for_what_the_backend_has_taken() -> None:
    goes_on = asyncio.Event()

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/other" not in head:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await goes_on.wait()
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            got = 0
            while got < 16_000_000:
                got += len(await reader.read(65_536))
        writer.write(answer(b"all"))
        await reader.read()

    async with served(serve=stuck) as (at, _), client(at.port) as peer:
        number = peer.ask("/here", ("content-length", "16000000"), method="POST", ends=False)
        sent = 0
        await peer.read()
        while sent < 16_000_000:
            room = min(peer.h2.local_flow_control_window(number), 16_000_000 - sent)
            if room:
                peer.send(number, bytes(room), ends=sent + room == 16_000_000)
                sent += room
                continue
            await peer.settled()
            if not goes_on.is_set() and only2(at).streams[number]._paused:
                # Another stream is not held up by that.
                assert bytes((await peer.hear(peer.ask("/here/other"))).body) == b"all"
                assert sum(size for _, size in only2(at).streams[number]._inbox) <= STREAM_WINDOW
                goes_on.set()
                await peer.read()
        assert goes_on.is_set()
        assert bytes((await peer.hear(number)).body) == b"all"
        assert peer.h2.outbound_flow_control_window > CONNECTION_WINDOW // 4


@looped
async def test_a_body_that_comes_before_its_backend_is_held_and_sent() -> None:
    async with served(answer()) as (at, backend), client(at.port) as peer:
        number = peer.ask("/here", ("content-length", "5"), method="PUT", ends=False)
        peer.send(number, b"12345", ends=True)
        assert (await peer.hear(number)).status == 200
        assert backend.bodies == [b"12345"]
        number = peer.ask("/here", method="PUT", ends=False)
        peer.send(number, b"", ends=True)
        await peer.hear(number)
        assert backend.bodies[-1] == b""


@looped
async def test_a_body_that_is_shorter_than_it_said_goes_no_further() -> None:
    async with served(answer()) as (at, _), client(at.port) as peer:
        number = peer.ask("/here", ("content-length", "9"), method="POST", ends=False)
        peer.send(number, b"1234")
        peer.h2.send_headers(number, [("x-sum", "1")], end_stream=True)
        peer.flush()
        assert (await peer.hear(number)).reset == ErrorCodes.PROTOCOL_ERROR
        assert (await peer.hear(peer.ask())).status == 200
        for data in (b"12345678901", b"1"):
            async with client(at.port) as other:
                number = other.ask("/here", ("content-length", "9"), method="POST", ends=False)
                other.send(number, data, ends=True)
                assert codes(await other.goodbye()) == [ErrorCodes.PROTOCOL_ERROR]


@looped
async def test_a_backend_that_breaks_off_is_noticed_by_its_stream_alone() -> None:
    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/good" in head:
            writer.write(answer())
            await reader.read()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123")
        writer.close()

    async with served(serve=breaks) as (at, _), client(at.port) as peer:
        heard = await peer.hear(peer.ask())
        assert (heard.status, heard.reset) == (200, ErrorCodes.INTERNAL_ERROR)
        assert (await peer.hear(peer.ask("/here/good"))).status == 200


@looped
async def test_an_answer_that_does_not_wait_for_the_body_ends_the_stream() -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"no", "413 Too Large", "Connection: close"))
        await reader.read()

    async with served(serve=early) as (at, _), client(at.port) as peer:
        number = peer.ask(method="POST", ends=False)
        heard = await peer.hear(number)
        assert (heard.status, bytes(heard.body)) == (413, b"no")
        # What is on its way is thrown away for a moment; then the client is told.
        for _ in range(10):
            peer.send(number, bytes(16_384))
            await peer.settled()
        stream = only2(at).streams[number]
        assert stream._lingers is not None
        stream._lingers -= LINGER
        at.admission._reads_http().tick()
        assert not only2(at).streams
        await peer.settled()
        with pytest.raises(ProtocolError):
            peer.send(number, b"more")
        number = peer.ask(method="POST", ends=False)
        await peer.hear(number)
        peer.send(number, b"", ends=True)
        await until(lambda: not only2(at).streams)


@looped
async def test_bodies_pass_both_ways_and_trailers() -> None:
    size = 3_000_000
    body = os.urandom(size)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding: chunked\r\n" in head
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while length := int(await reader.readline(), 16):
            writer.write(b"%x\r\n" % length + await reader.readexactly(length) + b"\r\n")
            await reader.readline()
            await writer.drain()
        trailer = await reader.readline()
        writer.write(b"0\r\n" + trailer + b"\r\n")

    async with served(serve=echo) as (at, _), client(at.port) as peer:
        number = peer.ask(method="POST", ends=False)
        sent = 0
        while sent < size:
            room = min(peer.h2.local_flow_control_window(number), size - sent)
            if not room:
                await peer.read()
                continue
            peer.send(number, body[sent : sent + room])
            sent += room
        peer.h2.send_headers(number, [("x-sum", "1"), ("host", "evil")], end_stream=True)
        peer.flush()
        heard = await peer.hear(number)
        assert heard.interim == ["103"]
        assert hashlib.sha256(heard.body).digest() == hashlib.sha256(body).digest()
        assert heard.trailers == {"x-sum": "1"}
