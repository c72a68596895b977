"""WebSockets on streams of HTTP/2 (RFC 8441), with backends that speak HTTP/1.1."""

import asyncio
import base64
import hashlib
import os
from dataclasses import replace

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from tests.dataplane.http.http2.peer import Client, client
from tests.dataplane.http.http2.test_client import only2
from tests.dataplane.http.site import answer, routed, served
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import echo

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept(head: bytes) -> bytes:
    """What RFC 6455 wants for the key of a handshake."""
    [key] = [line[19:] for line in head.split(b"\r\n") if line.startswith(b"sec-websocket-key: ")]
    return base64.b64encode(hashlib.sha1(key + GUID).digest())  # noqa: S324


async def websocket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Switch, greet at once, and echo."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"GET /here/chat HTTP/1.1\r\n")
    assert b"connection: Upgrade\r\nupgrade: websocket\r\n" in head
    assert b"sec-websocket-version: 13\r\n" in head
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: " + accept(head) + b"\r\n\r\ngreeting"
    )
    await echo(reader, writer)


def connect(peer: Client) -> int:
    """Ask for a WebSocket."""
    fields = (("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"))
    return peer.ask("/here/chat", *fields, ends=False, method="CONNECT", protocol="websocket")


async def read(peer: Client, number: int, size: int) -> bytes:
    """So many bytes of a stream."""
    body = peer.streams[number].body
    while len(body) < size:
        await peer.read()
    data = bytes(body[:size])
    del body[:size]
    return data


@looped
async def test_both_sides_say_what_they_like_beside_other_requests() -> None:
    async with served(serve=websocket) as (at, backend), client(at.port) as peer:
        await peer.read()
        assert peer.h2.remote_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1
        number = connect(peer)
        peer.send(number, b"early")
        heard = await peer.heard(number)
        assert heard.status == 200
        assert heard.fields["sec-websocket-protocol"] == "chat"
        assert not heard.fields.keys() & {"sec-websocket-accept", "upgrade", "connection"}
        assert await read(peer, number, 13) == b"greetingearly"
        for size in (1, 1000, 60_000):
            data = os.urandom(size)
            peer.send(number, data)
            assert await read(peer, number, size) == data
        [flow] = [flow for flow in await at.admission.flows(10) if flow.backend_port == backend.port]
        assert flow.decision.mapping == "www"
        peer.send(number, b"", ends=True)
        assert (await peer.hear(number)).reset is None
        await until(lambda: ("flow-end", "CLOSED") in at.reasons())
        assert only2(at).held == 0


@looped
async def test_a_backend_that_does_not_switch_answers_as_ever() -> None:
    async with served(answer(b"no", "403 Forbidden")) as (at, backend), client(at.port) as peer:
        await peer.read()
        number = connect(peer)
        heard = await peer.hear(number)
        assert (heard.status, bytes(heard.body)) == (403, b"no")
        assert backend.heads[0].startswith("GET /here/chat HTTP/1.1\r\n")
        peer.send(number, b"", ends=True)
        await until(lambda: not only2(at).streams)


@looped
async def test_a_backend_that_has_not_understood_is_not_believed() -> None:
    wrong = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    async with served(wrong) as (at, _), client(at.port) as peer:
        await peer.read()
        heard = await peer.hear(connect(peer))
        assert heard.fields["x-marchproxy-reason"] == "UPSTREAM_REFUSED"
        assert heard.status == 502


@looped
async def test_a_backend_that_ends_ends_the_stream() -> None:
    async def short(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept(head) + b"\r\n\r\nbye"
        )
        writer.close()

    async with served(serve=short) as (at, _), client(at.port) as peer:
        await peer.read()
        number = connect(peer)
        heard = await peer.hear(number)
        assert (heard.status, bytes(heard.body)) == (200, b"bye")
        peer.send(number, b"late")
        peer.send(number, b"", ends=True)
        await until(lambda: not only2(at).streams)


@pytest.mark.parametrize("slow", ["client", "backend"])
@looped
async def test_who_takes_nothing_holds_up_the_other_side(slow: str) -> None:
    sent = 0

    async def stubborn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept(head) + b"\r\n\r\n"
        )
        if slow == "backend":
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.Event().wait()
        while True:
            writer.write(bytes(65_536))
            await writer.drain()
            sent += 65_536

    async with served(serve=stubborn) as (at, _), client(at.port) as peer:
        await peer.read()
        peer.takes = False
        number = connect(peer)
        await peer.heard(number)
        stream = only2(at).streams[number]
        if slow == "client":
            await until(lambda: stream.out.full)
            assert only2(at).held < 512 * 1024
        else:
            while not stream._paused:
                if room := peer.h2.local_flow_control_window(number):
                    peer.send(number, bytes(room))
                await peer.settled()
        at.admission._reads_http().live.copy().pop().end()
        await until(lambda: not at.admission._reads_http().live)


@looped
async def test_one_that_is_silent_ends_and_one_that_is_cut_off() -> None:
    async with served(serve=websocket) as (at, backend), client(at.port) as peer:
        await peer.read()
        number = connect(peer)
        await read(peer, number, 8)
        plan = routed(at, backend.port)
        at.apply(replace(plan, settings=replace(plan.settings, tunnel_idle=1)), 3)
        carrying = only2(at).streams[number].carrying
        assert carrying is not None
        carrying.conversation.last_seen -= 2
        at.admission._reads_http().tick()
        assert (await peer.hear(number)).over
        await until(lambda: ("flow-end", "IDLE") in at.reasons())
        number = connect(peer)
        await read(peer, number, 8)
        at.apply(routed(at, backend.port, path="/elsewhere/"), 4)
        assert (await peer.hear(number)).reset == ErrorCodes.CANCEL
        await until(lambda: ("flow-end", "POLICY_CHANGED") in at.reasons())
