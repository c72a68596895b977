"""Requests in early data (0-RTT): what goes on at once, what waits, and that nothing is said twice."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aioquic.quic.connection import MAX_EARLY_DATA
from aioquic.quic.packet import QuicErrorCode
from aioquic.tls import SessionTicket

from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.dataplane.http.http3.client import MOST_PIECES
from marchproxy.dataplane.quic.replays import Replays, share
from marchproxy.dataplane.quic.steering import Steering
from marchproxy.dataplane.records import EventKind
from tests.certificates import identity
from tests.clientcerts import ClientAuthority
from tests.dataplane.admission.desk import Desk, desk
from tests.dataplane.http.http3.peer import Http3Client, http3
from tests.dataplane.http.http3.test_listeners import http3_of, live
from tests.dataplane.http.site import QUICK, Backend, answer
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import tcp_server
from tests.policy import build
from tests.policy.build import mapping, service

SECRET = b"1" * 32
HOST = "proxy.example"
LATE = replace(QUICK, head=10.0, silence=10.0, keepalive=10.0, sending=10.0)


@asynccontextmanager
async def worker(
    backend: Backend, table: int | None = None, more: tuple[Any, ...] = (), **fields: Any
) -> AsyncGenerator[Desk]:
    """A process in front of that backend, which knows with the others what was said."""
    contexts = Contexts()
    contexts.learn([identity("proxy", HOST, "late.example")])
    contexts.share(SECRET)
    async with desk(limits=LATE, contexts=contexts) as at:
        at.admission.steer(Steering(), Replays(None if table is None else os.dup(table)))
        apply(at, backend, *more, **fields)
        yield at


def apply(at: Desk, backend: Backend, *more: Any, **fields: Any) -> None:
    """One host that takes early data, and one that does not."""

    def on(name: str, host: str, **said: Any) -> Any:
        where = f"127.0.0.1:{at.port}"
        return mapping(name, "lan", "web", where, "https,quic", tls="proxy", host=host, **said)

    lan, web = service("lan", "127.0.0.1", "127.0.0.3"), service("web", "127.0.0.2", port=backend.port)
    early = on("early", HOST, **{"early_data": True, **fields})
    at.apply(build.plan(lan, web, early, on("late", "late.example"), *more))


@asynccontextmanager
async def served(*answers: bytes, **fields: Any) -> AsyncGenerator[tuple[Desk, Backend]]:
    backend = Backend(*(answers or (answer(),)))
    async with tcp_server(backend.serve, "127.0.0.2") as backend.port, worker(backend, **fields) as at:
        yield at, backend


async def ticket_of(at: Desk, name: str = HOST) -> SessionTicket:
    """That of a visit."""
    async with http3(at.port, name) as client:
        await until(lambda: bool(client.tickets))
        return client.tickets[0]


@asynccontextmanager
async def early(at: Desk, ticket: SessionTicket, name: str = HOST) -> AsyncGenerator[Http3Client]:
    """A client that speaks at once, and hears nothing until it is told to."""
    client = Http3Client(at.port, name, "127.0.0.1", session_ticket=ticket)
    try:
        client.listen(hears=False)
        client.hasten()
        yield client
    finally:
        client.close()


def paths(backend: Backend) -> list[str]:
    return [head.split(" ", 2)[1] for head in backend.heads]


def waiting(at: Desk) -> int:
    """Requests of its connections that wait."""
    return sum(bool(stream.held) for each in http3_of(at).live for stream in each._streams.values())


def told(at: Desk) -> list[tuple[str, bool]]:
    found = [event.exchanged for event in at.events if event.kind is EventKind.REQUEST]
    return [(each.path, each.early_data) for each in found if each is not None]


@looped
async def test_a_get_goes_on_at_once_and_says_so() -> None:
    async with served() as (at, backend):
        at.admission.want(frozenset(EventKind))
        ticket = await ticket_of(at)
        assert ticket.max_early_data_size == MAX_EARLY_DATA
        async with early(at, ticket) as client:
            asked = client.ask("/a", "GET", HOST, ("early-data", "0"), ("early-data", "?"))
            await until(lambda: paths(backend) == ["/a"])
            assert not live(at).quic.complete
            assert backend.heads[0].lower().count("early-data") == 1
            assert backend.said("early-data") == "1"
            client.listen(hears=True)
            found = await client.answer(asked)
            assert (found.status, found.body) == (200, b"hello")
            assert client.quic.tls.early_data_accepted
            assert (await client.get("/b")).status == 200
            assert backend.said("early-data") is None
        await until(lambda: told(at) == [("/a", True), ("/b", False)])


@looped
async def test_what_is_not_safe_waits_and_is_whole() -> None:
    async with served() as (at, backend):
        ticket = await ticket_of(at)
        async with early(at, ticket) as client:
            body = bytes(range(256)) * 20
            asked = [
                client.ask("/post", "POST", HOST, body=body),
                client.ask("/token", "GET", HOST, ("authorization", "Bearer x")),
                client.ask("/late", "GET", "late.example"),
                client.ask("/body", "GET", HOST, body=b"more"),
                client.ask("/deleted", "DELETE", HOST),
                client.ask("/asked", "OPTIONS", HOST),
            ]
            await until(lambda: paths(backend) == ["/asked"])
            await until(lambda: waiting(at) == 5)
            client.listen(hears=True)
            assert [(await client.answer(each)).status for each in asked] == [200] * 6
        assert sorted(paths(backend)) == ["/asked", "/body", "/deleted", "/late", "/post", "/token"]
        assert body in backend.bodies
        assert [head.split()[1] for head in backend.heads if "early-data" in head.lower()] == ["/asked"]


@looped
async def test_nothing_comes_early_where_no_mapping_says_so() -> None:
    async with served() as (at, backend):
        late = await ticket_of(at, "late.example")
        assert late.max_early_data_size is None
        ticket = await ticket_of(at)
        # The plan in force decides, whatever the ticket says.
        apply(at, backend, early_data=False)
        async with early(at, ticket) as client:
            asked = client.ask("/a", "GET", HOST)
            await until(lambda: bool(http3_of(at).handshakes))
            client.listen(hears=True)
            assert (await client.answer(asked)).status == 200
            assert not client.quic.tls.early_data_accepted
        assert backend.said("early-data") is None
        assert paths(backend) == ["/a"]


@looped
async def test_who_may_be_asked_for_a_certificate_says_nothing_early() -> None:
    ca = ClientAuthority("ours").pem
    async with served() as (at, backend):
        ticket = await ticket_of(at)
        listen = f"127.0.0.1:{at.port}"
        asking = mapping("m", "lan", "web", listen, "https,quic", tls="proxy", host="m.example", client_ca=ca)
        apply(at, backend, asking)
        assert (await ticket_of(at)).max_early_data_size is None
        async with early(at, ticket) as client:
            asked = client.ask("/a", "GET", HOST)
            client.listen(hears=True)
            assert (await client.answer(asked)).status == 200
            assert not client.quic.tls.early_data_accepted


@looped
async def test_another_process_takes_it_and_a_replay_is_taken_by_none() -> None:
    table = share()
    backend = Backend(answer())
    async with (
        tcp_server(backend.serve, "127.0.0.2") as backend.port,
        worker(backend, table) as one,
        worker(backend, table) as two,
        worker(backend, table) as three,
    ):
        os.close(table)
        ticket = await ticket_of(one)
        async with early(two, ticket) as client:
            flight = record(client)
            client.ask("/once", "GET", HOST)
            await until(lambda: paths(backend) == ["/once"])
            for at in (one, three):
                for data in flight:
                    client.socket.sendto(data, ("127.0.0.1", at.port))
                await until(lambda: http3_of(at).handshakes == 1)  # noqa: B023
                endpoint = next(iter(http3_of(at)._open.values()))
                assert not any(each.engine.early for each in endpoint._every)
                assert not http3_of(at).live
            # All of it has been read, for it comes in one turn of the loop.
            await asyncio.sleep(0.05)
            assert paths(backend) == ["/once"]


@looped
async def test_nobody_asks_in_the_name_of_another_address() -> None:
    async with served() as (at, backend):
        ticket = await ticket_of(at)
        client = Http3Client(at.port, HOST, "127.0.0.1", "127.0.0.3", session_ticket=ticket)
        client.listen(hears=False)
        try:
            client.hasten()
            asked = client.ask("/a", "GET", HOST)
            await until(lambda: http3_of(at).handshakes == 1)
            assert not http3_of(at).live
            client.listen(hears=True)
            assert (await client.answer(asked)).status == 200
            assert not client.quic.tls.early_data_accepted
        finally:
            client.close()
        assert backend.said("early-data") is None
        assert paths(backend) == ["/a"]


@looped
async def test_too_early_goes_to_the_client_and_nothing_is_tried_again() -> None:
    refused = answer(b"", "425 Too Early"), answer(b"", "503 Service Unavailable"), answer()
    async with served(*refused, retry_on=["503"]) as (at, backend):
        ticket = await ticket_of(at)
        async with early(at, ticket) as client:
            first = client.ask("/a", "GET", HOST)
            await until(lambda: paths(backend) == ["/a"])
            second = client.ask("/b", "GET", HOST)
            await until(lambda: paths(backend) == ["/a", "/b"])
            client.listen(hears=True)
            assert [(await client.answer(each)).status for each in (first, second)] == [425, 503]
        assert paths(backend) == ["/a", "/b"]


@looped
@pytest.mark.parametrize("ends", ["gone", "reset"])
async def test_who_waits_and_goes_leaves_nothing(ends: str) -> None:
    async with served() as (at, backend):
        ticket = await ticket_of(at)
        async with early(at, ticket) as client:
            asked = client.ask("/a", "POST", HOST, body=None)
            client.more(asked, b"x" * 5000)
            await until(lambda: waiting(at) == 1)
            if ends == "reset":
                client.quic.reset_stream(asked, 0x10C)
                client.flush()
                await until(lambda: not live(at)._streams)
                client.listen(hears=True)
                assert (await client.get("/b")).status == 200
            else:
                live(at).quic.abandon()
                await until(lambda: not http3_of(at).live)
        assert paths(backend) == (["/b"] if ends == "reset" else [])


@looped
async def test_what_waits_has_bounds() -> None:
    async with served() as (at, backend):
        ticket = await ticket_of(at)
        async with early(at, ticket) as client:
            asked = client.ask("/a", "POST", HOST, body=None)
            for _ in range(MOST_PIECES + 1):
                client.h3.send_data(asked, b"x", end_stream=False)
            client.flush()
            await until(lambda: not http3_of(at).live)
            client.listen(hears=True)
            await until(client.gone.is_set)
            # Before the handshake is complete no more is said (RFC 9000 section 10.2.3).
            assert client.ended is not None
            assert client.ended.error_code == QuicErrorCode.APPLICATION_ERROR
        assert not paths(backend)


def record(client: Http3Client) -> list[bytes]:
    """What it sends from now on."""
    said: list[bytes] = []
    make = client.quic.datagrams_to_send

    def made(now: float) -> Any:
        found = make(now)
        said.extend(data for data, _ in found)
        return found

    client.quic.datagrams_to_send = made  # type: ignore[method-assign]
    return said
