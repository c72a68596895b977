"""One request of HTTP/3; most of it is in test_listeners and test_client."""

import asyncio
from contextlib import suppress
from dataclasses import replace

from aioquic.h3.connection import ErrorCode

from tests.dataplane.http.http3.peer import http3
from tests.dataplane.http.http3.test_listeners import http3_of, live, site
from tests.dataplane.http.site import QUICK, answer
from tests.dataplane.loops import looped, until


@looped
async def test_an_answer_that_breaks_off_is_no_whole_one() -> None:
    broken = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nhalf"
    async with site(broken) as (at, _), http3(at.port) as client:
        found = await client.get()
        assert (found.status, found.reset) == (200, ErrorCode.H3_INTERNAL_ERROR)


@looped
async def test_a_body_that_nobody_wants_any_more_is_not_waited_for() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"no", "413 Content Too Large", "Connection: close"))
        with suppress(ConnectionError):
            await writer.drain()

    async with site(serve=serve) as (at, _), http3(at.port) as client:
        number = client.ask(method="POST", body=None)
        client.more(number, bytes(1000))
        found = await client.answer(number)
        assert (found.status, found.body) == (413, b"no")
        await until(lambda: not live(at)._streams)
        assert (await client.answer(client.ask("/elsewhere"))).status == 404


@looped
async def test_a_backend_that_is_silent_is_not_waited_for_for_ever() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with site(serve=serve, limits=replace(QUICK, silence=0.3)) as (at, _), http3(at.port) as client:
        number = client.ask()
        for _ in range(60):
            http3_of(at).tick()
            await asyncio.sleep(0.05)
            if client.answers[number].done.is_set():
                break
        assert client.answers[number].status == 504


@looped
async def test_a_client_that_never_ends_its_body_is_given_up() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with site(serve=serve, limits=replace(QUICK, silence=0.3)) as (at, _), http3(at.port) as client:
        number = client.ask(method="POST", body=None)
        client.more(number, b"some")
        for _ in range(60):
            http3_of(at).tick()
            await asyncio.sleep(0.05)
            if client.answers[number].done.is_set():
                break
        assert client.answers[number].reset == ErrorCode.H3_REQUEST_CANCELLED


@looped
async def test_all_that_a_request_held_is_given_back() -> None:
    """Conversations, room and places, after all kinds of ends."""
    async with site(answer(b"x" * 100)) as (at, _), http3(at.port) as client:
        for index in range(30):
            number = client.ask(method="POST", body=b"b" * 500)
            if index % 3:
                client.quic.stop_stream(number, ErrorCode.H3_REQUEST_CANCELLED)
                client.flush()
            else:
                await client.answer(number)
        await until(lambda: not live(at)._streams)
        assert not live(at).counting._uses
        assert not live(at).engine._taken or len(live(at).engine._taken) < 10
