"""pool: several processes serve the daemon's listeners, and none of them is missed for long."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Address
from typing import cast

import pytest

from marchproxy.dataplane.credentials.keeper import CredentialKeeper
from marchproxy.dataplane.credentials.parts import BookParts
from marchproxy.dataplane.logring import Said
from marchproxy.dataplane.names.found import Failure, Found, LookupFailed
from marchproxy.dataplane.records import Event, EventKind
from marchproxy.dataplane.workers import messages
from marchproxy.dataplane.workers import pool as pools
from marchproxy.dataplane.workers.messages import ListFlows
from marchproxy.dataplane.workers.pool import WorkerPool
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Plan
from tests.certificates import keeper
from tests.dataplane.loops import PATIENCE, looped, until
from tests.policy.build import mapping, plan, service

HOST = IPv4Address("127.0.0.1")


class NoCredentials:
    """Stands in for a keeper."""

    def __init__(self) -> None:
        self.parts = BookParts()
        self.book = self.parts.book()

    def note_use(self, token: str, now: object) -> None:
        raise AssertionError(token)


async def find(name: str) -> Found:
    if name == "here.example":
        return Found((HOST,), 60.0)
    raise LookupFailed(Failure.NXDOMAIN)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def policy(listen: int, *ports: int) -> Plan:
    """A proxy on loopback whose clients may reach these ports there."""
    made = plan(
        service("clients", "127.0.0.0/8"),
        service("servers", "127.0.0.1"),
        mapping("m", "clients", "servers", ports=",".join(map(str, ports))),
    )
    return replace(made, explicit=(Endpoint(HOST, listen),))


class Made:
    """A pool of two, with a server behind it that sends back what it gets."""

    def __init__(
        self, pool: WorkerPool, listen: int, server: int, events: list[Event], logged: list[Said]
    ) -> None:
        self.logged = logged
        self.pool = pool
        self.listen = listen
        self.server = server
        self.events = events

    async def connect(
        self, host: str = "127.0.0.1"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        """A client of the proxy, and the line that it is answered with."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listen)
        target = f"{host}:{self.server}".encode()
        writer.write(b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + target + b"\r\n\r\n")
        line = await reader.readline()
        while (await reader.readline()).strip():
            pass
        return reader, writer, line

    async def works(self) -> bool:
        reader, writer, line = await self.connect()
        assert b" 200 " in line
        writer.write(b"word")
        answer = await reader.readexactly(4)
        writer.close()
        return answer == b"word"

    def processes(self) -> list[int]:
        children = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
        with open(children) as file:
            found = [int(text) for text in file.read().split()]
        return [pid for pid in found if b"workers.worker" in _command_line(pid)]


def _command_line(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


type Asking = Callable[[messages.Question], Awaitable[object]]


@asynccontextmanager
async def serving(count: int = 2, *, verbosity: int = 0) -> AsyncIterator[Made]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    events: list[Event] = []
    logged: list[Said] = []
    credentials = cast(CredentialKeeper, NoCredentials())
    pool = WorkerPool(count, find, credentials, keeper(), None, verbosity=verbosity, logged=logged.append)
    made = Made(pool, free_port(), port, events, logged)
    pool.start(events.append)
    pool.prepare(policy(made.listen, port)).commit(1)
    polling = asyncio.create_task(_poll(pool))
    try:
        await until(lambda: len(made.processes()) == count, "workers")
        yield made
    finally:
        polling.cancel()
        await pool.close()
        server.close()
        await server.wait_closed()
    assert made.processes() == []


async def _poll(pool: WorkerPool) -> None:
    while True:
        pool.poll()
        await asyncio.sleep(0.2)


async def eventually(condition: Callable[[], object]) -> None:
    await until(lambda: bool(condition()))


@looped
async def test_clients_are_served_and_told_of() -> None:
    async with serving() as made:
        assert await made.works()
        await eventually(lambda: [each for each in made.events if each.kind is EventKind.FLOW_END])
        await eventually(lambda: made.pool.counters().get(Reason.FORWARDED))
        reader, writer, line = await made.connect()
        assert b" 200 " in line
        (flow,) = await made.pool.flows(10)
        assert (flow.decision.mapping, flow.backend_port) == ("m", made.server)
        assert await made.pool.in_use(frozenset({HOST})) == {HOST}
        assert await made.pool.cut(frozenset({flow.decision.id, 1})) == {flow.decision.id}
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


@looped
async def test_what_workers_carry_is_told_to_the_byte_and_outlives_them() -> None:
    async with serving() as made:
        clients = [await made.connect() for _ in range(8)]
        for reader, writer, _ in clients:
            writer.write(b"word")
            assert await reader.readexactly(4) == b"word"
        found = (await made.pool.carried()).mappings["m"]
        assert (found.flows, found.sent_bytes, found.received_bytes) == (8, 32, 32)
        for pid in made.processes():
            os.kill(pid, signal.SIGKILL)
        await until(lambda: any("unexpectedly" in text for text in made.pool.problems()), "they are missed")
        for _, writer, _ in clients:
            writer.close()
        assert (await made.pool.carried()).mappings["m"] == found
        await until(lambda: len(made.processes()) == 2, "others in their place")
        assert await made.works()
        grown = (await made.pool.carried()).mappings["m"]
        assert grown.flows == 9
        assert grown.sent_bytes > 32


@looped
async def test_workers_begin_with_the_plan_that_needs_them_and_are_waited_for() -> None:
    pool = WorkerPool(2, find, cast(CredentialKeeper, NoCredentials()), keeper(), None)
    made = Made(pool, free_port(), free_port(), [], [])
    pool.start(made.events.append)
    pool.prepare(policy(made.listen, made.server)).commit(1)
    try:
        assert all(place.alive for place in pool._workers)
        assert await pool._ask_all(messages.CatchUp()) == [True, True]
    finally:
        await pool.close()


@looped
async def test_once_settled_what_workers_refused_is_told_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MOMENT", PATIENCE)
    async with serving() as made:
        await eventually(lambda: all(place.serves for place in made.pool._workers))
        for number in range(1, 4):
            _, writer, line = await made.connect("127.0.0.9")
            assert b" 403 " in line
            writer.close()
            await made.pool.settle()
            assert len([each for each in made.events if each.kind is EventKind.DENIED]) == number


@looped
async def test_a_worker_that_stands_still_holds_nobody_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MOMENT", 0.05)
    async with serving(1) as made:
        await eventually(lambda: all(place.serves for place in made.pool._workers))
        (pid,) = made.processes()
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.wait_for(made.pool.settle(), PATIENCE)
        finally:
            os.kill(pid, signal.SIGCONT)


@looped
async def test_names_are_looked_up_by_the_daemon() -> None:
    async with serving() as made:
        _, writer, line = await made.connect("nowhere.example")
        assert b" 502 " in line
        writer.close()


@looped
async def test_numbers_of_conversations_are_nobody_elses() -> None:
    async with serving() as made:
        clients = [await made.connect() for _ in range(40)]
        numbers = {flow.decision.id for flow in await made.pool.flows(100)}
        assert len(numbers) == 40
        for _, writer, _ in clients:
            writer.close()


@looped
async def test_a_worker_that_dies_is_replaced_and_nobody_is_refused() -> None:
    async with serving() as made:
        clients = [await made.connect() for _ in range(12)]
        first, second = made.pool._workers
        killed, other = (place._process.pid for place in (first, second) if place._process)
        spared = await second.ask(ListFlows(100))
        assert isinstance(spared, list)
        os.kill(killed, signal.SIGKILL)
        for _ in range(20):
            assert await made.works(), "the other one has the same listening sockets"
        await until(lambda: len(made.processes()) == 2, "another in its place")
        assert other in made.processes()
        assert any("ended unexpectedly" in text for text in made.pool.problems())
        alive = 0
        for reader, writer, _ in clients:
            writer.write(b"word")
            try:
                alive += await reader.readexactly(4) == b"word"
            except (asyncio.IncompleteReadError, ConnectionError):
                continue
            finally:
                writer.close()
        assert alive == len(spared), "those of the other one go on"


@looped
async def test_a_new_plan_reaches_all_and_closes_what_is_gone() -> None:
    async with serving() as made:
        assert await made.works()
        other = free_port()
        made.pool.prepare(policy(other, made.server)).commit(2)
        old, made.listen = made.listen, other
        for _ in range(10):
            assert await made.works()

        def refused() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", old)) != 0

        await until(refused, "the old listener to be closed")


@looped
async def test_what_was_told_holds_in_every_worker_when_it_is_said_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as made:
        heard: list[object] = []
        for place in made.pool._workers:
            await_answer = place.ask

            async def ask(question: messages.Question, to: Asking = await_answer) -> object:
                heard.append(await to(question))
                return heard[-1]

            monkeypatch.setattr(place, "ask", ask)
        await made.pool.inform()
        assert heard == [True, True]


@looped
async def test_draining_lets_tunnels_finish() -> None:
    async with serving() as made:
        reader, writer, _ = await made.connect()
        draining = asyncio.create_task(made.pool.drain(2 * PATIENCE))
        await asyncio.sleep(0.1)
        writer.write(b"late")
        assert await reader.readexactly(4) == b"late"
        writer.close()
        await asyncio.wait_for(draining, PATIENCE)
        assert made.processes() == []


@looped
async def test_what_workers_log_comes_to_the_daemon() -> None:
    async with serving(1, verbosity=1) as made:
        _, writer, line = await made.connect("nowhere.example")
        assert b" 200 " not in line
        await until(lambda: any("NAME_UNKNOWN" in each.message for each in made.logged), "a record")
        found = next(each for each in made.logged if "NAME_UNKNOWN" in each.message)
        assert (found.process, found.level, found.number) == ("worker 1", "debug", 0)
        writer.close()
