"""WebSockets: bytes after the handshake."""

import asyncio
import errno

import pytest

from marchproxy.dataplane.http import switching
from marchproxy.dataplane.http.exchange import Exchange
from marchproxy.dataplane.logs import flow_of
from tests.dataplane.http.site import answer, only, response, routed, served
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import dial
from tests.dataplane.proxy.peers import echo as echoing

HANDSHAKE = (
    b"GET /here HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


async def websocket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Switch, greet at once, and echo."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"upgrade: websocket" in head
    assert b"connection: Upgrade" in head
    writer.write(ACCEPTED + b"greeting")
    await echoing(reader, writer)


@looped
async def test_both_sides_say_what_they_like_after_the_switch() -> None:
    async with served(serve=websocket) as (at, _), dial(at.port) as (reader, writer):
        writer.write(HANDSHAKE)
        head, _ = await response(reader)
        assert "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        assert "upgrade: websocket" in head
        assert await reader.readexactly(8) == b"greeting"
        for size in (1, 1000, 1_000_000):
            writer.write(bytes(size))
            assert await reader.readexactly(size) == bytes(size)


@looped
async def test_in_the_clear_it_is_a_tunnel_that_the_kernel_may_take() -> None:
    async with served(serve=websocket) as (at, backend), dial(at.port) as (reader, writer):
        writer.write(HANDSHAKE)
        await response(reader)
        await until(lambda: bool(at.admission._tunnels.live))
        [flow] = await at.admission.flows(10)
        assert flow.decision.mapping == "www"
        assert (str(flow.backend), flow.backend_port) == ("127.0.0.2", backend.port)
        assert at.admission._gate.inside == 1
        writer.close()
        await until(lambda: not at.admission._gate.inside)
        assert [kind for kind, _ in at.reasons()].count("flow-start") == 1
        assert [kind for kind, _ in at.reasons()].count("flow-end") == 1


@looped
async def test_a_plan_that_no_longer_allows_it_ends_it() -> None:
    async with served(serve=websocket) as (at, backend), dial(at.port) as (reader, writer):
        writer.write(HANDSHAKE)
        await response(reader)
        await until(lambda: bool(at.admission._tunnels.live))
        at.apply(routed(at, backend.port, action="deny"), 3)
        await until(lambda: ("flow-end", "POLICY_CHANGED") in at.reasons())


@looped
async def test_a_websocket_that_cannot_go_on_is_found_by_the_ids_of_its_flow_and_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(switching, "_copies", fail)
    async with served(serve=websocket) as (at, _), dial(at.port) as (reader, writer):
        writer.write(HANDSHAKE)
        await response(reader)
        await until(lambda: any(event.exchanged for event in at.events))
        [told] = [event for event in at.events if event.exchanged]
        [record] = [each for each in caplog.records if "WebSocket" in each.getMessage()]
        assert flow_of(record) == told.decision.id > 0
        assert told.exchanged
        wanted = f"request {told.exchanged.request_id}: a WebSocket of h is ended: Too many open files"
        assert record.getMessage() == wanted


@looped
async def test_a_request_whose_search_fails_is_found_by_the_ids_of_its_flow_and_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: Exchange, first: object) -> None:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(Exchange, "_reach", fail)
    async with served(serve=websocket) as (at, _), dial(at.port) as (_, writer):
        writer.write(HANDSHAKE.replace(b"Host: h", b"Host: h\r\nX-Request-Id: 0af7651916cd43dd"))
        await until(lambda: bool(caplog.records))
        [record] = caplog.records
        assert record.getMessage() == "request 0af7651916cd43dd failed: ZeroDivisionError: by nought"
        exchange = only(at).exchange
        assert exchange
        assert exchange.conversation
        assert flow_of(record) == exchange.conversation.number > 0


@looped
async def test_a_backend_that_does_not_switch_answers() -> None:
    async with served(answer(b"no", "426 Upgrade Required")) as (at, _), dial(at.port) as (reader, writer):
        writer.write(HANDSHAKE)
        head, body = await response(reader)
        assert head.startswith("HTTP/1.1 426 ")
        assert body == b"no"
