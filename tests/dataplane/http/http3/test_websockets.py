"""WebSockets on streams of HTTP/3 (RFC 9220), with backends that speak HTTP/1.1."""

import asyncio
import os
import time
from dataclasses import replace

import pytest
from aioquic.h3.connection import ErrorCode, Setting

from marchproxy.dataplane.http.http3.stream import RequestStream
from marchproxy.model.reason import Reason
from tests.dataplane.admission.desk import Desk
from tests.dataplane.http.http3.peer import Http3Client, http3
from tests.dataplane.http.http3.test_listeners import live, plan, site
from tests.dataplane.http.site import answer
from tests.dataplane.http.test_websockets import accept, websocket
from tests.dataplane.loops import looped, until

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


def connect(client: Http3Client, protocol: str = "websocket") -> int:
    """Ask for a WebSocket."""
    head = [(":method", "CONNECT"), (":protocol", protocol), (":scheme", "https"), (":path", "/here/chat")]
    more = [("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat")]
    return client.say([*head, (":authority", "proxy.example"), *more], body=None)


async def read(client: Http3Client, number: int, size: int) -> bytes:
    """So many bytes of a stream."""
    heard = client.answers[number]
    await until(lambda: len(heard.body) >= size)
    body = heard.body
    heard.pieces[:] = [body[size:]]
    return body[:size]


def stream(at: Desk, number: int) -> RequestStream:
    return live(at)._streams[number]


@looped
async def test_both_sides_say_what_they_like_beside_other_requests() -> None:
    async with site(serve=websocket) as (at, backend), http3(at.port) as client:
        number = connect(client)
        client.more(number, b"early")
        assert await read(client, number, 13) == b"greetingearly"
        assert client.h3.received_settings is not None
        assert client.h3.received_settings[Setting.ENABLE_CONNECT_PROTOCOL] == 1
        heard = client.answers[number]
        assert (heard.status, heard.fields["sec-websocket-protocol"]) == (200, "chat")
        assert not heard.fields.keys() & {"sec-websocket-accept", "upgrade", "connection"}
        for size in (1, 1000, 600_000):
            data = os.urandom(size)
            client.more(number, data)
            assert await read(client, number, size) == data
        [flow] = [flow for flow in await at.admission.flows(10) if flow.backend_port == backend.port]
        assert flow.decision.mapping == "www"
        assert flow.sent.bytes == 5 + 601_001
        client.more(number, b"", ends=True)
        await client.answer(number)
        assert client.answers[number].reset is None
        await until(lambda: ("flow-end", "CLOSED") in at.reasons())
        await until(lambda: not live(at)._streams)


@looped
async def test_a_backend_that_does_not_switch_answers_as_ever() -> None:
    async with site(answer(b"no", "403 Forbidden")) as (at, backend), http3(at.port) as client:
        heard = await client.answer(connect(client))
        assert (heard.status, heard.body) == (403, b"no")
        assert backend.heads[0].startswith("GET /here/chat HTTP/1.1\r\n")
        heard = await client.answer(connect(client, "other"))
        assert heard.status == 501


@looped
async def test_a_backend_that_has_not_understood_is_not_believed() -> None:
    wrong = SWITCHED + b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    async with site(wrong) as (at, _), http3(at.port) as client:
        heard = await client.answer(connect(client))
        assert (heard.status, heard.fields["x-marchproxy-reason"]) == (502, "UPSTREAM_REFUSED")


@looped
async def test_who_ends_ends_the_other_side() -> None:
    async def short(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCHED + b"Sec-WebSocket-Accept: " + accept(head) + b"\r\n\r\nbye")
        writer.close()

    async with site(serve=short) as (at, _), http3(at.port) as client:
        heard = await client.answer(connect(client))
        assert (heard.status, heard.body) == (200, b"bye")
        await until(lambda: not live(at)._streams)
    async with site(serve=websocket) as (at, _), http3(at.port) as client:
        number = connect(client)
        await read(client, number, 8)
        client.quic.reset_stream(number, ErrorCode.H3_REQUEST_CANCELLED)
        client.flush()
        await until(lambda: ("flow-end", "RESET") in at.reasons())
        number = connect(client)
        await read(client, number, 8)
        client.close()
        await until(lambda: at.reasons().count(("flow-end", "RESET")) >= 2)


@pytest.mark.parametrize("slow", ["client", "backend"])
@looped
async def test_who_takes_nothing_holds_up_the_other_side(slow: str) -> None:
    async def stubborn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCHED + b"Sec-WebSocket-Accept: " + accept(head) + b"\r\n\r\nhi")
        if slow == "backend":
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.Event().wait()
        while True:
            writer.write(bytes(65_536))
            await writer.drain()

    async with site(serve=stubborn) as (at, _), http3(at.port) as client:
        number = connect(client)
        await read(client, number, 2)
        carrying = stream(at, number).carrying
        assert carrying is not None
        if slow == "client":
            client.reads = False
            client._loop.remove_reader(client.socket)
            await until(lambda: stream(at, number)._full)
            assert live(at).engine.unsent(number) < 2 * 1024 * 1024
        else:
            client.more(number, bytes(16 << 20))
            await until(lambda: stream(at, number)._paused)
            assert carrying.upstream.transport.get_write_buffer_size() < 4 << 20
        live(at).end()


@looped
async def test_one_that_is_silent_ends_and_one_that_is_cut_off() -> None:
    async with site(serve=websocket) as (at, backend), http3(at.port) as client:
        number = connect(client)
        await read(client, number, 8)
        made = plan(at, backend)
        at.apply(replace(made, settings=replace(made.settings, tunnel_idle=1)), 3)
        carrying = stream(at, number).carrying
        assert carrying is not None
        await until(lambda: not live(at).engine.unsent(number))
        # Requests of which nothing comes are given up; this is none any more.
        stream(at, number).tick(time.monotonic() + 3600)
        assert stream(at, number).carrying is carrying
        carrying.conversation.last_seen -= 2
        assert carrying.conversation in live(at).conversations
        live(at).tick(client._loop.time())
        await client.answer(number)
        await until(lambda: ("flow-end", "IDLE") in at.reasons())
        number = connect(client)
        await read(client, number, 8)
        at.apply(plan(at, backend, path_prefix="/elsewhere"), 4)
        assert (await client.answer(number)).reset == ErrorCode.H3_REQUEST_CANCELLED
        await until(lambda: ("flow-end", "POLICY_CHANGED") in at.reasons())
        at.apply(made, 5)
        number = connect(client)
        await read(client, number, 8)
        live(at).end(Reason.CUT)
        await until(lambda: ("flow-end", "CUT") in at.reasons())
