"""Bytes through the relay: every one of them, in both directions, whatever the ends do."""

import asyncio
import hashlib
import socket
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest

from marchproxy.dataplane.proxy.pipes import PIPE_SIZE
from marchproxy.dataplane.proxy.relay import Pump
from tests.dataplane.loops import looped, until
from tests.dataplane.plans import backend, listener, plan, rule
from tests.dataplane.proxy.peers import (
    Appliance,
    Serve,
    Streams,
    appliance,
    dial,
    echo,
    free_port,
    tcp_server,
)

MEGABYTE = bytes(range(256)) * 4096


@asynccontextmanager
async def through(serve: Serve) -> AsyncGenerator[tuple[Appliance, Streams]]:
    """A client connected through the appliance to a server."""
    port = free_port()
    async with (
        tcp_server(serve) as server,
        appliance(plan(listener(port, rule(backend(server))))) as running,
        dial(port) as streams,
    ):
        yield running, streams


def _held(pump: Pump) -> int:
    return pump._held if isinstance(pump._held, int) else len(pump._held)


def reset(writer: asyncio.StreamWriter) -> None:
    """End with RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def send(writer: asyncio.StreamWriter, times: int) -> str:
    """Send megabytes, half-close, and return their hash."""
    digest = hashlib.sha256()
    for number in range(times):
        piece = MEGABYTE + number.to_bytes(4)
        digest.update(piece)
        writer.write(piece)
        await writer.drain()
    writer.write_eof()
    return digest.hexdigest()


async def standstill(measure: Callable[[], int]) -> None:
    """Wait until a hundred turns of the loop change nothing: over loopback, nothing is on its way."""
    quiet = 0
    while quiet < 100:
        before = measure()
        await asyncio.sleep(0)
        quiet = quiet + 1 if measure() == before else 0


async def receive(reader: asyncio.StreamReader) -> str:
    """The hash of everything until the end."""
    digest = hashlib.sha256()
    while data := await reader.read(1 << 18):
        digest.update(data)
    return digest.hexdigest()


@looped
async def test_large_transfers_both_ways_at_once_arrive_whole() -> None:
    at_server: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got, sent = await asyncio.gather(receive(reader), send(writer, 24))
        at_server.set_result((got, sent))

    async with through(serve) as (running, (reader, writer)):
        got, sent = await asyncio.gather(receive(reader), send(writer, 32))
        assert await at_server == (sent, got)
        await until(lambda: ("flow-end", "CLOSED") in running.reasons())
        flow = running.events[-1].flow
        assert flow is not None
        assert flow.sent.bytes == 32 * (len(MEGABYTE) + 4)
        assert flow.received.bytes == 24 * (len(MEGABYTE) + 4)


@looped
async def test_an_upload_ended_by_half_close_is_answered() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await receive(reader)).encode())

    async with through(serve) as (_, (reader, writer)):
        sent = await send(writer, 3)
        assert (await reader.read()).decode() == sent


@looped
async def test_a_download_ended_by_half_close_leaves_the_upload_open() -> None:
    late = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        late.set_result(await reader.read())

    async with through(serve) as (running, (reader, writer)):
        assert await reader.read() == b"bye"
        assert not late.done()
        writer.write(b"one more thing")
        writer.write_eof()
        assert await late == b"one more thing"
        await until(lambda: ("flow-end", "CLOSED") in running.reasons())


@looped
async def test_a_reader_that_stops_stops_the_sender() -> None:
    """What the appliance holds meanwhile is one read at most; the rest waits in socket buffers."""
    sent = 0

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(MEGABYTE)
            await writer.drain()
            sent += len(MEGABYTE)

    async with through(serve) as (running, (reader, _)):
        # A StreamReader takes twice its limit of 64 KiB from its socket while nobody reads, and no more.
        await reader.readexactly(1)
        relay = next(iter(running.tier._tcp.live)).relay
        assert relay is not None
        await standstill(lambda: relay.conversation.received.bytes)
        assert any(pump._held for pump in relay._pumps)
        assert max(_held(pump) for pump in relay._pumps) <= PIPE_SIZE
        # Four socket buffers stand in the way, of a few megabytes each at most (tcp_rmem, tcp_wmem).
        stopped_at = sent
        assert stopped_at < 64 * len(MEGABYTE)
        while sent < stopped_at + 4 * len(MEGABYTE):
            assert await reader.read(1 << 20)


@pytest.mark.parametrize("who", ["client", "server"])
@looped
async def test_a_reset_is_passed_on_as_a_reset(who: str) -> None:
    ready = asyncio.Event()
    outcome: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    async def watch(reader: asyncio.StreamReader) -> None:
        try:
            await reader.read()
        except ConnectionResetError as error:
            outcome.set_result(error)
        else:
            outcome.set_result(None)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        ready.set()
        if who == "server":
            reset(writer)
        else:
            await watch(reader)

    async with through(serve) as (running, (reader, writer)):
        writer.write(b"hi")
        await ready.wait()
        if who == "client":
            reset(writer)
        else:
            await watch(reader)
        assert isinstance(await outcome, ConnectionResetError)
        await until(lambda: ("flow-end", "RESET") in running.reasons())


@looped
async def test_a_client_that_closes_while_data_comes_ends_the_conversation() -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(MEGABYTE)
            await writer.drain()

    async with through(serve) as (running, (reader, writer)):
        await reader.readexactly(1)
        writer.close()
        await until(lambda: ("flow-end", "RESET") in running.reasons())
        assert not running.tier._tcp.live


@looped
async def test_small_exchanges_are_not_held_back() -> None:
    """With Nagle's algorithm and delayed ACKs, two hundred rounds would take eight seconds."""
    async with through(echo) as (_, (reader, writer)):
        async with asyncio.timeout(4):
            for number in range(200):
                message = b"x" * (number + 1)
                writer.write(message[:1])
                writer.write(message[1:])
                assert await reader.readexactly(len(message)) == message
