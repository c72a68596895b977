"""Ids of requests, and trace contexts."""

import re

import pytest

from marchproxy.dataplane.http.messages import Request
from marchproxy.dataplane.http.tracing import new_id, settle_id
from tests.dataplane.http.site import answer, ask, get, response, said, served
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import dial

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_ids_are_all_different() -> None:
    made = {new_id() for _ in range(1000)}
    assert len(made) == 1000
    assert {len(each) for each in made} == {32}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (("abc-1",), "abc-1"),
        (("A" * 128,), "A" * 128),
        (("A" * 129,), ""),
        (("a b",), ""),
        (('a"',), ""),
        (("",), ""),
        (("a", "b"), ""),
        ((), ""),
    ],
)
def test_what_is_fit_for_logs_is_kept(given: tuple[str, ...], kept: str) -> None:
    fields = (*(("x-request-id", each) for each in given), ("accept", "*/*"))
    request = Request("GET", "h", "h", "/", "/", fields, 0, "1.1")
    assert settle_id(request) == kept
    assert settle_id(request) == kept
    assert ("x-request-id" in dict(request.fields)) is bool(kept)
    assert ("accept", "*/*") in request.fields


@looped
async def test_each_request_has_one_also_where_it_is_the_same_again() -> None:
    async with served(answer()) as (at, backend):
        async with dial(at.port) as (reader, writer):
            for _ in range(3):
                writer.write(get())
                await response(reader)
        ids = [backend.said("x-request-id", index) for index in range(3)]
        assert len(set(ids)) == 3
        await until(lambda: len([event for event in at.events if event.exchanged]) == 3)
        assert [event.exchanged.request_id for event in at.events if event.exchanged] == ids


@looped
async def test_a_good_one_and_the_trace_go_on_and_are_told() -> None:
    async with served(answer()) as (at, backend):
        await ask(at, get("/here", "h.example", "X-Request-ID: mine.1", f"Traceparent: {PARENT}"))
        assert backend.heads[0].count("x-request-id") == 1
        assert (backend.said("x-request-id"), backend.said("traceparent")) == ("mine.1", PARENT)
        await until(lambda: any(event.exchanged for event in at.events))
        [facts] = [event.exchanged for event in at.events if event.exchanged]
        assert (facts.request_id, facts.traceparent) == ("mine.1", PARENT)


@looped
async def test_a_bad_one_is_replaced() -> None:
    async with served(answer()) as (at, backend):
        await ask(at, get("/here", "h.example", "X-Request-ID: <script>"))
        assert backend.heads[0].count("x-request-id") == 1
        assert len(backend.said("x-request-id") or "") == 32


@looped
async def test_who_is_refused_can_say_which_request_it_was() -> None:
    async with served(answer()) as (at, _):
        [(head, _)] = await ask(at, get("/other", "h.example", "X-Request-ID: mine"))
        assert said(head, "x-request-id") == ["mine"]


@pytest.mark.parametrize(
    "given", [None, "nonsense", PARENT.replace("00-", "ff-", 1), f"00-{'0' * 32}-{'1' * 16}-01"]
)
@looped
async def test_a_trace_is_begun_where_the_mapping_says_so(given: str | None) -> None:
    fields = (f"Traceparent: {given}", "Tracestate: old=1") if given else ()
    async with served(answer(), trace=True) as (at, backend):
        await ask(at, get("/here", "h.example", *fields))
        await ask(at, get("/here", "h.example", *fields))
        await ask(at, get("/here", "h.example", f"Traceparent: {PARENT}", "Tracestate: old=1"))
        made = [backend.said("traceparent", index) or "" for index in range(3)]
        assert all(re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", each) for each in made)
        assert made[0] != made[1]
        assert made[2] == PARENT
        assert [backend.said("tracestate", index) for index in range(3)] == [None, None, "old=1"]
        await until(lambda: len([event for event in at.events if event.exchanged]) == 3)
        assert [event.exchanged.traceparent for event in at.events if event.exchanged] == made
