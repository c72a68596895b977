"""What is asked again goes the way it went, for as long as that is right."""

import asyncio
from typing import Any

import pytest

from marchproxy.dataplane.http.way import Way
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


async def way(at: Desk, peer: Peer) -> Way | None:
    """That of the client's second request: for the first one there is no connection yet."""
    assert [await ask(peer) for _ in range(2)] == ["200", "200"]
    return only(at).way


@looped
async def test_what_is_asked_again_goes_the_same_way_and_is_counted() -> None:
    async with served(answer()) as (at, backend), dial(at.port) as peer:
        found = await way(at, peer)
        assert found is not None
        assert await ask(peer) == "200"
        assert only(at).way is found
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
        assert await ask(peer, get("/here", "other.example")) == "200"
        assert only(at).way is not found
        assert backend.said("host") == "other.example"
        assert [each.name for each in only(at).conversations] == ["other.example"]
        assert await ask(peer) == "200"
        assert backend.said("host") == "h.example"


@looped
async def test_another_plan_ends_it() -> None:
    async with served(answer()) as (at, backend), dial(at.port) as peer:
        assert await way(at, peer) is not None
        at.apply(routed(at, backend.port, action="deny"))
        assert only(at).way is None
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
        connection = only(at)
        assert connection.way is found
        assert found.again(found.request, at.admission._reads_http().site) is None
        await ask(peer)
        assert connection.way is not found


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
