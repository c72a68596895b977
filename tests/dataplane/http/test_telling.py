"""What is told of exchanges: of which backend, how often, and how much."""

from marchproxy.dataplane.records import Exchanged
from tests.dataplane.admission.desk import Desk
from tests.dataplane.http.site import answer, ask, get, response, routed, served
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import dial


async def told(at: Desk, count: int = 1) -> list[Exchanged]:
    await until(lambda: len([event for event in at.events if event.exchanged]) == count)
    return [event.exchanged for event in at.events if event.exchanged]


@looped
async def test_bodies_are_counted_both_ways() -> None:
    async with served(answer(b"y" * 9)) as (at, _):
        post = b"POST /here HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n12345"
        await ask(at, post)
        [facts] = await told(at)
        assert (facts.sent, facts.received, facts.method) == (5, 9, "POST")


@looped
async def test_who_is_refused_had_no_backend_whoever_answered_before() -> None:
    async with served(answer()) as (at, _), dial(at.port) as (reader, writer):
        for path in ("/here", "/other"):
            writer.write(get(path))
            await response(reader)
        first, second = await told(at, 2)
        assert first.backend
        assert (second.backend, second.service, second.attempts, second.connected) == ("", "", 0, 0.0)
        assert (second.status, second.route) == (404, "")


@looped
async def test_a_backend_that_cannot_be_reached_was_an_attempt() -> None:
    async with served(answer()) as (at, backend):
        at.apply(routed(at, 1))
        await ask(at, get())
        [facts] = await told(at)
        assert (facts.status, facts.attempts, facts.backend) == (502, 1, "")
        assert backend.connections == 0
