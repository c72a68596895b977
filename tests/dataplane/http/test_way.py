"""What is asked again goes the way it went, for as long as that is right."""

import asyncio
from typing import Any

import pytest

from marchproxy.dataplane.http.way import REMEMBERED, SMALL, Way
from tests.dataplane.admission.desk import Desk, blocking
from tests.dataplane.http.site import answer, get, only, response, routed, served
from tests.dataplane.loops import looped
from tests.dataplane.proxy.peers import dial

type Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def ask(peer: Peer, request: bytes = get()) -> str:
    """The status that a request gets."""
    reader, writer = peer
    writer.write(request)
    return (await response(reader))[0].split(" ", 2)[1]


def way_of(at: Desk, request: bytes = get()) -> Way | None:
    return only(at).ways.find(request)


async def way(at: Desk, peer: Peer) -> Way | None:
    """That of the client's second request: for the first one there is no connection yet."""
    assert [await ask(peer) for _ in range(2)] == ["200", "200"]
    return way_of(at)


@looped
async def test_what_is_asked_again_goes_the_same_way_and_is_counted() -> None:
    async with served(answer()) as (at, backend), dial(at.port) as peer:
        found = await way(at, peer)
        assert found is not None
        assert await ask(peer) == "200"
        assert way_of(at) is found
        assert len(backend.heads) == 3
        assert backend.connections == 1
        [conversation] = only(at).conversations
        assert conversation is found.conversation
        assert conversation.sent.bytes == 3 * len(get())
        assert conversation.received.packets == 3
        assert len({backend.said("x-request-id", each) for each in range(3)}) == 3


@looped
async def test_another_request_is_decided_by_itself() -> None:
    async with served(answer()) as (at, backend), dial(at.port) as peer:
        found = await way(at, peer)
        assert await ask(peer, get("/elsewhere")) == "404"
        assert way_of(at) is found
        assert await ask(peer, get("/here", "other.example")) == "200"
        assert way_of(at) is None
        assert backend.said("host") == "other.example"
        assert [each.name for each in only(at).conversations] == ["other.example"]
        assert await ask(peer) == "200"
        assert backend.said("host") == "h.example"


@looped
async def test_the_ways_of_several_requests_are_remembered() -> None:
    async with served(answer()) as (at, _), dial(at.port) as peer:
        await way(at, peer)
        asked = [get(f"/here/{number}") for number in range(5)]
        for each in asked * 2:
            assert await ask(peer, each) == "200"
        found = [way_of(at, each) for each in asked]
        assert [each and each.request.path for each in found] == [f"/here/{number}" for number in range(5)]
        for each in asked:
            assert await ask(peer, each) == "200"
        assert [way_of(at, each) for each in asked] == found


@looped
async def test_of_many_requests_and_of_large_ones_few_are() -> None:
    async with served(answer()) as (at, _), dial(at.port) as peer:
        await way(at, peer)
        asked = [get(f"/here/{number}") for number in range(3 * REMEMBERED)]
        large = get("/here", "h.example", "x-large: " + "x" * SMALL)
        for each in [*asked, large]:
            assert await ask(peer, each) == "200"
        found = way_of(at, large)
        assert found is not None
        assert not found.plain
        assert way_of(at, asked[-1]) is not None
        assert way_of(at, large) is None
        assert len(only(at).ways._by_head) <= REMEMBERED


@looped
async def test_another_plan_ends_it() -> None:
    async with served(answer()) as (at, backend), dial(at.port) as peer:
        assert await way(at, peer) is not None
        at.apply(routed(at, backend.port, action="deny"))
        assert way_of(at) is None
        assert await ask(peer) == "403"
        assert len(backend.heads) == 2


@looped
async def test_so_does_a_block_of_its_backend() -> None:
    async with served(answer()) as (at, backend), dial(at.port) as peer:
        assert await way(at, peer) is not None
        at.apply(blocking(routed(at, backend.port), "127.0.0.2"))
        assert await ask(peer) == "403"
        assert len(backend.heads) == 2


@looped
async def test_where_a_backend_fails_each_request_is_decided() -> None:
    busy = answer(b"", "503 Service Unavailable")
    async with served(answer(), answer(), busy, eject_after=1) as (at, _), dial(at.port) as peer:
        found = await way(at, peer)
        assert found is not None
        assert await ask(peer) == "503"
        assert way_of(at) is found
        assert found.again(found.request, at.admission._reads_http().site) is None
        assert found.repeats(at.admission._reads_http().site) is None
        assert await ask(peer) == "503"


@looped
async def test_where_no_connection_is_free_another_is_made() -> None:
    async with served(answer()) as (at, backend), dial(at.port) as peer:
        assert await way(at, peer) is not None
        at.admission._reads_http().site.pool.close()
        assert await ask(peer) == "200"
        assert backend.connections == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"balance": "round-robin"},
        {"sticky": True},
        {"trace": True},
        {"retry_on": ["reset"]},
        {"max_requests": 5},
        {"limit_requests": "1000/s"},
    ],
)
@looped
async def test_there_is_none_where_each_request_counts(fields: dict[str, Any]) -> None:
    async with served(answer(), **fields) as (at, _), dial(at.port) as peer:
        assert await way(at, peer) is None


@pytest.mark.parametrize(
    ("request_", "plain"),
    [
        (get(), True),
        (get("/here", "h.example", "x-request-id: mine"), True),
        (get("/here", "h.example", "connection: keep-alive", version="1.0"), False),
        (get().replace(b"GET", b"DELETE"), False),
        (get("/here", "h.example", "content-length: 0").replace(b"GET", b"POST"), False),
        (get("/here", "h.example", f"cookie: {'x' * SMALL}"), False),
    ],
)
@looped
async def test_only_what_is_plain_is_gone_without_an_exchange(request_: bytes, plain: bool) -> None:
    async with served(answer()) as (at, backend), dial(at.port) as peer:
        assert [await ask(peer, request_) for _ in range(2)] == ["200", "200"]
        found = way_of(at, request_)
        assert found is not None
        assert found.plain is plain
        site = at.admission._reads_http().site
        assert found.repeats(site) is None, "somebody is told of requests"
        site.ledger.wanted = frozenset()
        assert await ask(peer, request_) == "200"
        assert backend.heads[1].splitlines()[0] == backend.heads[2].splitlines()[0]
        if b"mine" in request_:
            assert [backend.said("x-request-id", each) for each in range(3)] == ["mine"] * 3
