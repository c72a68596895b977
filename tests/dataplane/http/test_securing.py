"""TLS under HTTP: which version is agreed on, and how it begins, ends and fails."""

import asyncio
import gc
import os
import ssl
import time
import weakref
from dataclasses import replace
from typing import cast

import pytest

from marchproxy.dataplane.credentials.contexts import server_context
from marchproxy.dataplane.http.client import LINGER
from marchproxy.dataplane.http.securing import Securing
from marchproxy.dataplane.proxy.protocol.admission import DEADLINE
from marchproxy.dataplane.proxy.protocol.secured import MAX_PIECE, MAX_UNSENT, RECORD, Secured
from tests.dataplane.admission.desk import Desk
from tests.dataplane.http.http2.peer import Client
from tests.dataplane.http.site import QUICK, answer, get, only, response, served
from tests.dataplane.http.test_tls import ONE, known, securely
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import dial
from tests.dataplane.proxy.protocol.hellos import real_hello


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["h2", "http/1.1"], "h2"),
        (["http/1.1", "h2"], "h2"),
        (["http/1.1"], "http/1.1"),
        (["h3"], None),
        ([], None),
    ],
)
@looped
async def test_what_was_agreed_on_is_spoken(offered: list[str], chosen: str | None) -> None:
    tls = served(answer(), contexts=known(), tls="one")
    async with tls as (at, backend), securely(at.port, "one.example", offered) as (reader, writer):
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
        if chosen == "h2":
            peer = Client(reader, writer)
            assert bytes((await peer.hear(peer.ask())).body) == b"hello"
        else:
            writer.write(get())
            assert (await response(reader))[1] == b"hello"
        assert backend.said("x-forwarded-proto") == "https"


@looped
async def test_what_was_not_agreed_on_is_not_spoken() -> None:
    tls = served(answer(), contexts=known(), tls="one")
    async with tls as (at, _), securely(at.port, "one.example", ["http/1.1"]) as (reader, writer):
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        head, _ = await response(reader)
        assert head.startswith("HTTP/1.1 505 ")
    tls = served(answer(), contexts=known(), tls="one")
    async with tls as (at, _), securely(at.port, "one.example", ["h2"]) as (reader, writer):
        writer.write(get())
        assert b"\x07" in await reader.read()


def anyone() -> ssl.SSLContext:
    """Of a client that takes every certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def shaking(at: Desk) -> list[Securing]:
    return list(at.admission._reads_http()._shaking)


@looped
async def test_who_does_not_agree_in_time_is_sent_away() -> None:
    tls = served(answer(), contexts=known(), tls="one")
    async with tls as (at, _), dial(at.port) as (_, writer):
        writer.write(real_hello("one.example")[:100])
        await until(lambda: bool(shaking(at)))
        at.admission._reads_http().tick()
        assert shaking(at)
        [slow] = shaking(at)
        slow.tick(time.monotonic() + DEADLINE + 1)
        await until(lambda: at.reasons() == [("denied", "TOO_SLOW")])
        assert at.admission._gate.inside == 0
        assert not shaking(at)


@looped
async def test_who_leaves_before_is_not_told_of() -> None:
    async with served(answer(), contexts=known(), tls="one") as (at, _):
        async with dial(at.port) as (_, writer):
            writer.write(real_hello("one.example"))
            await until(lambda: bool(shaking(at)))
        await until(lambda: at.admission._gate.inside == 0)
        assert not shaking(at)
        assert at.reasons() == []


@looped
async def test_a_client_is_told_why_tls_cannot_be() -> None:
    async with served(answer(), contexts=known(), tls="one") as (at, _):
        context = anyone()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("AES256-SHA")
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            await asyncio.open_connection("127.0.0.1", at.port, ssl=context)
        await until(lambda: at.reasons() == [("denied", "TLS_FAILED")])
        assert at.admission._gate.inside == 0


@looped
async def test_what_was_touched_on_the_way_ends_the_connection() -> None:
    tls = served(answer(), contexts=known(), tls="one")
    async with tls as (at, backend), securely(at.port, "one.example") as (reader, writer):
        writer.write(get())
        await response(reader)
        plain = writer.transport.get_extra_info("socket")
        os.write(plain.fileno(), b"\x17\x03\x03\x00\x20" + b"x" * 32)
        await until(lambda: at.admission._gate.inside == 0)
        assert len(backend.heads) == 1


@looped
async def test_those_that_have_not_agreed_end_with_the_listener() -> None:
    tls = served(answer(), contexts=known(), tls="one")
    async with tls as (at, _), dial(at.port) as (_, writer):
        writer.write(real_hello("one.example")[:100])
        await until(lambda: bool(shaking(at)) and not at.admission._reads_http()._tasks)
        await at.admission._reads_http().close()
        await until(lambda: not shaking(at))
        assert at.admission._gate.inside == 0


@looped
async def test_an_end_is_said_and_heard() -> None:
    """The client gets close_notify behind the answer; its own has the connection ended at once."""
    tls = served(answer(), contexts=known(), tls="one")
    async with tls as (at, _):
        async with securely(at.port, "one.example") as (reader, writer):
            writer.write(get("/here", "h.example", "Connection: close"))
            assert (await response(reader))[1] == b"hello"
            assert await reader.read() == b""
        await until(lambda: at.admission._gate.inside == 0)
        async with securely(at.port, "one.example") as (_, writer):
            await until(lambda: bool(at.admission._reads_http().live))
            writer.close()
            await until(lambda: at.admission._gate.inside == 0)


@looped
async def test_what_is_over_leaves_nothing_to_the_collector() -> None:
    gc.disable()
    try:
        async with served(answer(), contexts=known(), tls="one") as (at, _):
            async with securely(at.port, "one.example") as (reader, writer):
                writer.write(get())
                await response(reader)
                gone = weakref.ref(only(at).transport)
            await until(lambda: at.admission._gate.inside == 0)
            await until(lambda: gone() is None)
    finally:
        gc.enable()


@pytest.mark.parametrize("size", [1, RECORD, RECORD + 1, 3 * MAX_PIECE])
@looped
async def test_whatever_its_size_a_body_comes_through(size: int) -> None:
    body = os.urandom(size)
    tls = served(answer(body), contexts=known(), tls="one")
    async with tls as (at, backend), securely(at.port, "one.example") as (reader, writer):
        for _ in range(2):
            writer.write(get("/here", "h.example", f"Content-Length: {size}").replace(b"GET", b"POST") + body)
            assert (await response(reader))[1] == body
        assert backend.bodies == [body, body]


class Full:
    """A transport whose other end takes nothing."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.unsent = 0
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.aborted = True

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 16, 64

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize(("more", "aborted"), [(0, False), (1, True)])
def test_who_wants_answers_of_tls_and_reads_none_is_cut_off(more: int, aborted: bool) -> None:
    context = server_context(ONE)
    securing = Securing(context, 0.0, set(), lambda _: asyncio.Protocol(), lambda _, detail: None)
    full, client = Full(), Secured(anyone(), server=False)
    securing.connection_made(cast(asyncio.Transport, full))
    client.shake(b"")
    securing.data_received(client.unsent())
    client.shake(bytes(full.sent))
    full.unsent = 64 + MAX_UNSENT + more
    # What ends the handshake is answered by tickets.
    securing.data_received(client.unsent())
    assert full.aborted is aborted


class Leaving(asyncio.Protocol):
    """Ends as soon as it begins, as a connection does that is drained by then."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()

    def data_received(self, data: bytes) -> None:
        raise AssertionError("it has ended")


def begun(app: asyncio.Protocol) -> tuple[Securing, Full, Secured]:
    """Until the client has made what ends the handshake, which is not sent yet."""
    securing = Securing(server_context(ONE), 0.0, set(), lambda _: app, lambda _, detail: None)
    full, client = Full(), Secured(anyone(), server=False)
    securing.connection_made(cast(asyncio.Transport, full))
    client.shake(b"")
    securing.data_received(client.unsent())
    assert client.shake(bytes(full.sent))
    full.sent.clear()
    return securing, full, client


def test_a_request_right_behind_the_handshake_may_come_to_somebody_who_leaves() -> None:
    securing, full, client = begun(Leaving())
    securing.data_received(client.unsent() + client.seal(b"GET / HTTP/1.1"))
    client.open(bytes(full.sent))
    assert client.ended


def test_openssl_is_given_no_more_at_once_behind_a_handshake_than_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard = bytearray()

    class Hearing(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            heard.extend(data)

    given: list[int] = []
    shake = Secured.shake

    def told(secured: Secured, data: bytes | memoryview) -> bool:
        given.append(len(data))
        return shake(secured, data)

    monkeypatch.setattr(Secured, "shake", told)
    securing, _, client = begun(Hearing())
    body = os.urandom(6 * RECORD)
    given.clear()
    securing.data_received(client.unsent() + client.seal(body))
    assert given == [RECORD]
    assert heard == body


@looped
async def test_who_says_nothing_to_the_end_of_an_idle_connection_is_not_waited_for_long() -> None:
    limits = replace(QUICK, keepalive=75)
    tls = served(answer(), contexts=known(), tls="one", limits=limits)
    async with tls as (at, _), securely(at.port, "one.example") as (reader, writer):
        writer.write(get())
        await response(reader)
        cast(asyncio.Transport, writer.transport).pause_reading()
        connection = only(at)
        connection.drain()
        connection.tick(time.monotonic() + LINGER + 1)
        await until(lambda: at.admission._gate.inside == 0)
