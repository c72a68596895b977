"""Exchanges between several backends, some of which fail."""

import asyncio
import errno
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.dataplane.admission.desk import Desk, desk
from tests.dataplane.http.site import LAN, QUICK, Backend, Serve, answer, ask, get, response, said, served
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import dial, free_port, tcp_server
from tests.policy import build
from tests.policy.build import mapping, service

BUSY = answer(b"busy", "503 Service Unavailable")
POST = b"POST /here HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"


async def hang_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


@asynccontextmanager
async def pair(bad: Serve | int, *good: bytes, **fields: Any) -> AsyncGenerator[tuple[Desk, Backend]]:
    """A desk with two backends, in turns: one that serves like this (or no one at a port), and a good one."""
    backend = Backend(*(good or (answer(b"good"),)))
    async with (
        tcp_server(backend.serve, "127.0.0.2") as backend.port,
        tcp_server(silence if isinstance(bad, int) else bad, "127.0.0.3") as port,
        desk(limits=QUICK) as at,
    ):
        first = service("first", "127.0.0.3", port=bad if isinstance(bad, int) else port)
        web = service("web", "127.0.0.2", port=backend.port)
        document = {"path_prefix": "/here", "balance": "round-robin", **fields}
        made = mapping("www", "lan", "first,web", f"127.0.0.1:{at.port}", "http", **document)
        at.apply(build.plan(LAN, first, web, made))
        yield at, backend


async def statuses(at: Desk, count: int, request: bytes = get()) -> list[str]:
    return [(await ask(at, request))[0][0].split()[1] for _ in range(count)]


def ticked(at: Desk) -> bool:
    """What is done about once a second is done now."""
    at.admission._reads_http().tick()
    return True


@pytest.mark.parametrize(("bad", "what", "otherwise"), [("busy", "503", "503"), ("reset", "reset", "502")])
@looped
async def test_what_was_chosen_is_sent_again_to_another(bad: str, what: str, otherwise: str) -> None:
    serve = Backend(BUSY).serve if bad == "busy" else hang_up
    async with pair(serve, eject_after=0) as (at, _):
        assert sorted(await statuses(at, 4)) == ["200", "200", otherwise, otherwise]
    async with pair(serve, eject_after=0, retry_on=[what]) as (at, _):
        assert await statuses(at, 4) == ["200"] * 4
        assert at.admission.request_counts()["retried"] == 2
        # The second time does more: it is not sent again.
        assert sorted(await statuses(at, 2, POST)) == ["200", otherwise]


@looped
async def test_a_silent_one_is_given_up_as_the_mapping_says() -> None:
    async with pair(silence, eject_after=0, retry_on=["timeout"], response_timeout=1) as (at, _):
        asking = asyncio.create_task(statuses(at, 2))
        await until(lambda: ticked(at) and asking.done())
        assert await asking == ["200"] * 2
        await until(lambda: len([each for each in at.events if each.exchanged]) == 2)
        attempts = [each.exchanged.attempts for each in at.events if each.exchanged]
        assert sorted(attempts) == [1, 2]


@looped
async def test_retries_have_a_budget_and_one_request_few() -> None:
    bad = Backend(BUSY)
    async with pair(bad.serve, BUSY, eject_after=0, retry_on=["503"], retry_budget=1) as (at, good):
        assert await statuses(at, 1) == ["503"]
        assert len(bad.heads) + len(good.heads) == 3
        await statuses(at, 10)
        counts = at.admission.request_counts()
        assert counts["retried"] == 3
        assert counts["unretried"] >= 9


@looped
async def test_a_backend_that_fails_is_left_out_and_said_so() -> None:
    bad = Backend(BUSY)
    async with pair(bad.serve, eject_after=2) as (at, _):
        await statuses(at, 4)
        [outlier] = at.admission.outliers()
        assert (outlier.service, outlier.why) == ("first", "it answers 503")
        assert await statuses(at, 6) == ["200"] * 6
        assert len(bad.heads) == 2


@pytest.mark.parametrize("balance", ["maglev", "source", "least-connections"])
@looped
async def test_whoever_was_there_before_is_sent_elsewhere(balance: str) -> None:
    bad = Backend(BUSY)
    async with pair(bad.serve, BUSY, eject_after=2, balance=balance) as (at, good):
        async with dial(at.port) as (reader, writer):
            for _ in range(8):
                writer.write(get())
                await response(reader)
        [outlier] = at.admission.outliers()
        first = bad if outlier.service == "first" else good
        assert len(first.heads) == 2


@looped
async def test_a_backend_comes_back_after_a_trial() -> None:
    bad = Backend(BUSY, BUSY, answer(b"well"))
    async with pair(bad.serve, eject_after=2) as (at, _):
        await statuses(at, 4)
        [(_, circuit)] = at.admission._reads_http().care.circuits
        circuit.until = 0.0
        assert await statuses(at, 4) == ["200"] * 4
        assert not at.admission.outliers()
        assert len(bad.heads) >= 3
        counts = at.admission.request_counts()
        assert (counts["ejected"], counts["returned"]) == (1, 1)


@looped
async def test_the_only_backend_stays_unless_the_mapping_says_so() -> None:
    async with served(BUSY, eject_after=1) as (at, backend):
        await statuses(at, 5)
        assert len(backend.heads) == 5
    async with served(BUSY, eject_after=1, eject_most=100) as (at, backend):
        assert await statuses(at, 3) == ["503"] * 3
        assert len(backend.heads) == 1
        [(head, _)] = await ask(at, get())
        assert (said(head, "x-marchproxy-reason"), said(head, "retry-after")) == (["NO_BACKEND"], ["1"])


@looped
async def test_who_cannot_be_reached_is_left_out_too() -> None:
    async with pair(free_port(), eject_after=2) as (at, _):
        assert await statuses(at, 6) == ["200"] * 6
        [outlier] = at.admission.outliers()
        assert outlier.service == "first"


@looped
async def test_so_many_at_one_time_and_the_others_wait() -> None:
    inside, most = [0], [0]

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            await asyncio.sleep(0.02)
            inside[0] -= 1
            writer.write(answer())

    async with served(serve=slow, max_requests=2, max_waiting=8) as (at, _):
        got = await asyncio.gather(*(ask(at, get()) for _ in range(10)))
        assert [head.split()[1] for [(head, _)] in got] == ["200"] * 10
        assert most[0] == 2
        room = at.admission._reads_http().care.room
        await until(lambda: not room._inside and not room._waiting)
    async with served(serve=slow, max_requests=2) as (at, _):
        got = await asyncio.gather(*(ask(at, get()) for _ in range(10)))
        found = sorted(head.split()[1] for [(head, _)] in got)
        assert found[:2] == ["200"] * 2
        assert found[-1] == "503"
        assert at.admission.request_counts()["crowded"] == found.count("503")
        assert most[0] == 2


@looped
async def test_clients_that_are_cut_leave_their_room() -> None:
    async with served(serve=silence, max_requests=1, max_waiting=2) as (at, _):
        room = at.admission._reads_http().care.room
        async with dial(at.port) as (_, writer), dial(at.port) as (_, other):
            writer.write(get())
            await until(lambda: bool(room._inside))
            other.write(get())
            await until(lambda: bool(room._waiting))
            for connection in tuple(at.admission._reads_http().live):
                connection.end()
            await until(lambda: not room._inside and not room._waiting)


@looped
async def test_no_backend_is_to_blame_for_what_is_used_up_here(monkeypatch: pytest.MonkeyPatch) -> None:
    async def used_up(*_: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    async with pair(free_port(), eject_after=1) as (at, _):
        monkeypatch.setattr(at.admission._reads_http()._pool, "connect", used_up)
        assert await statuses(at, 6) == ["503"] * 6
        assert not at.admission.outliers()


@looped
async def test_a_client_that_names_no_host_asks_each_backend_for_itself() -> None:
    bad = Backend(BUSY)
    async with pair(bad.serve, eject_after=0, retry_on=["503"]) as (at, good):
        assert await statuses(at, 2, b"GET /here HTTP/1.0\r\n\r\n") == ["200"] * 2
        assert (good.said("host"), bad.said("host")) != (None, None)
        assert good.said("host") == f"127.0.0.2:{good.port}"
