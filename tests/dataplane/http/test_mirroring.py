import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from marchproxy.dataplane.http import mirroring
from marchproxy.dataplane.records import EventKind
from tests.dataplane.admission.desk import Desk, blocking, desk
from tests.dataplane.http.http2.peer import client
from tests.dataplane.http.site import QUICK, Backend, Serve, answer, get, response, routed
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import dial, tcp_server
from tests.policy.build import mapping, service

POST = b"POST /here/it HTTP/1.1\r\nHost: h.example\r\nContent-Length: %d\r\n\r\n%b"


@asynccontextmanager
async def pair(
    serve: Serve | None = None, *, more: tuple[Any, ...] = (), mirror: str = "canary", **fields: Any
) -> AsyncGenerator[tuple[Desk, Backend, Backend]]:
    """A desk with a backend that answers, and one for copies."""
    web, canary = Backend(answer()), Backend(answer(b"nobody reads this", "500 Oops"))
    async with (
        tcp_server(web.serve, "127.0.0.2") as web.port,
        tcp_server(serve or canary.serve, "127.0.0.3") as canary.port,
        desk(limits=QUICK) as at,
    ):
        there = service("canary", "127.0.0.3", port=canary.port)
        at.apply(routed(at, web.port, there, *more, mirror=mirror, **fields))
        yield at, web, canary


async def talk(at: Desk, *requests: bytes) -> list[str]:
    """The statuses of answers, all on one connection."""
    async with dial(at.port) as (reader, writer):
        found = []
        for request in requests:
            writer.write(request)
            head, body = await response(reader)
            assert body == b"hello"
            found.append(head.split(" ")[1])
        return found


def counts(at: Desk) -> tuple[int, int, int]:
    found = at.admission.request_counts()
    return found["mirrored"], found["mirror_failed"], found["mirror_dropped"]


@looped
async def test_a_copy_says_what_the_request_said_and_what_it_is() -> None:
    async with pair(rewrite_prefix="/v2", request_headers=["set X-Env prod"]) as (at, web, canary):
        mine = POST.replace(b"Host", b"X-MarchProxy-Mirror: mine\r\nHost") % (5, b"cargo")
        assert await talk(at, mine, get("/here/it")) == ["200", "200"]
        await until(lambda: counts(at)[0] == 2)
        assert canary.heads[0].startswith("POST /v2/it HTTP/1.1\r\nhost: h.example\r\n")
        assert canary.bodies == [b"cargo", b""]
        assert canary.said("x-marchproxy-mirror") == "www"
        assert canary.said("via") == "1.1 marchproxy (mirror)"
        for name in ("x-request-id", "x-env", "x-forwarded-for", "content-length", "forwarded"):
            assert canary.said(name, 0) == web.said(name, 0) is not None
        assert web.said("x-marchproxy-mirror") is None


@looped
async def test_clients_of_http2_are_copied_alike() -> None:
    async with pair() as (at, _, canary), client(at.port) as http2:
        number = http2.ask(method="POST", ends=False)
        http2.send(number, b"car")
        http2.send(number, b"go", ends=True)
        assert (await http2.hear(number)).status == 200
        await until(lambda: counts(at)[0] == 1)
        assert canary.bodies == [b"cargo"]
        assert canary.said("content-length") == "5"
        assert canary.said("via") == "2 marchproxy (mirror)"


@looped
async def test_the_log_says_who_got_a_copy() -> None:
    async with pair() as (at, _, _):
        await talk(at, get())
        [told] = [event.exchanged for event in at.events if event.kind is EventKind.REQUEST]
        assert told is not None
        assert told.mirror == "canary"
        assert told.status == 200


@looped
async def test_none_of_a_hundred_is_copied_that_was_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([0.24, 0.25, 0.99, 0.0])
    monkeypatch.setattr("marchproxy.dataplane.http.mirroring.random.random", lambda: next(drawn))
    async with pair(mirror="canary=25") as (at, _, canary):
        await talk(at, *[get(f"/here/{number}") for number in range(4)])
        await until(lambda: counts(at)[0] == 2)
        assert [head.split(" ")[1] for head in canary.heads] == ["/here/0", "/here/3"]


@looped
async def test_who_never_answers_copies_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirroring, "MOST", 2)
    monkeypatch.setattr(mirroring, "DEADLINE", 0.2)

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with pair(silence) as (at, _, _):
        assert await talk(at, *[get()] * 5) == ["200"] * 5
        await until(lambda: sum(counts(at)) == 5)
        mirrors = at.admission._reads_http().site.mirrors
        await until(lambda: not mirrors._under_way)
        assert counts(at)[0] == 0
        assert counts(at)[1] >= 2
        assert not mirrors._held


@looped
async def test_a_service_that_is_not_there_or_breaks_off_is_counted_and_nothing_more() -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with pair(rude) as (at, web, _):
        assert await talk(at, *[get()] * 12) == ["200"] * 12
        await until(lambda: counts(at)[1] == 12)
        assert not at.admission.outliers()
        gone = service("canary", "127.0.0.4", port=web.port)
        at.apply(routed(at, web.port, gone, mirror="canary"), 3)
        assert await talk(at, get()) == ["200"]
        await until(lambda: counts(at)[1] == 13)


@looped
async def test_large_bodies_pass_and_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirroring, "MOST_BODY", 8)
    async with pair() as (at, web, canary):
        chunked = b"POST /here HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        small, large = b"3\r\nabc\r\n0\r\n\r\n", b"5\r\nabcde\r\n5\r\nfghij\r\n0\r\n\r\n"
        await talk(at, POST % (9, b"123456789"), chunked + large, chunked + small)
        await until(lambda: counts(at) == (1, 0, 2))
        assert web.bodies == [b"123456789", b"abcdefghij", b"abc"]
        assert canary.bodies == [b"abc"]
        assert not at.admission._reads_http().site.mirrors._held


@looped
async def test_a_request_that_is_never_complete_is_not_copied() -> None:
    async with pair() as (at, _, canary):
        async with dial(at.port) as (_, writer):
            writer.write(POST % (10, b"half"))
            await until(lambda: at.admission._reads_http().site.mirrors._held == 4)
        await until(lambda: counts(at)[2] == 1)
        assert not at.admission._reads_http().site.mirrors._held
        assert not canary.heads


@looped
async def test_who_is_blocked_while_a_request_comes_in_gets_no_copy() -> None:
    async with pair() as (at, web, canary), dial(at.port) as (reader, writer):
        writer.write(POST % (10, b"half"))
        await until(lambda: at.admission._reads_http().site.mirrors._held == 4)
        there = service("canary", "127.0.0.3", port=canary.port)
        at.apply(blocking(routed(at, web.port, there, mirror="canary"), "127.0.0.3"), 3)
        writer.write(b" whole")
        assert (await response(reader))[1] == b"hello"
        await until(lambda: counts(at) == (0, 0, 1))
        assert not canary.heads


@looped
async def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirroring, "MOST_ANSWER", 100_000)
    over: list[bool] = []

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"400\r\n" + bytes(1024) + b"\r\n")
                await writer.drain()
        except ConnectionError:
            over.append(True)

    async with pair(endless) as (at, _, _):
        await talk(at, get())
        await until(lambda: bool(over) and counts(at)[0] == 1)


@looped
async def test_policy_holds_for_copies_and_lets_the_request_pass() -> None:
    ban = mapping("ban", "lan", "canary", priority=50, action="deny")
    async with pair(more=(ban,)) as (at, web, canary):
        assert await talk(at, get()) == ["200"]
        assert counts(at) == (0, 0, 1)
        there = service("canary", "127.0.0.3", port=canary.port)
        at.apply(blocking(routed(at, web.port, there, mirror="canary"), "127.0.0.3"), 3)
        assert await talk(at, get()) == ["200"]
        assert counts(at) == (0, 0, 2)
        assert not canary.heads


@looped
async def test_copies_and_websockets_are_not_copied() -> None:
    async with pair() as (at, _, canary):
        await talk(at, get("/here", "h", "Via: 1.1 marchproxy (mirror)"))
        async with dial(at.port) as (reader, writer):
            writer.write(get("/here", "h", "Connection: upgrade", "Upgrade: websocket"))
            await response(reader)
        assert counts(at) == (0, 0, 0)
        assert not canary.heads


@looped
async def test_whoever_is_refused_sends_no_copy() -> None:
    async with pair(limit_requests="1/h") as (at, _, canary), dial(at.port) as (reader, writer):
        for status in ("200", "429"):
            writer.write(get())
            assert (await response(reader))[0].split(" ")[1] == status
        await until(lambda: counts(at)[0] == 1)
        assert len(canary.heads) == 1
