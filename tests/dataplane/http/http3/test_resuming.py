"""Sessions of HTTP/3: another process resumes them, none goes around a certificate, and nothing is early."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from aioquic.quic.connection import MAX_EARLY_DATA
from aioquic.tls import SessionTicket

from tests.dataplane.admission.desk import Desk
from tests.dataplane.http.http3.peer import Http3Client, http3
from tests.dataplane.http.http3.test_clientauth import HOSTS, OURS, apply, ask, guarded, showing
from tests.dataplane.http.site import Backend
from tests.dataplane.loops import looped, until

ONE, OTHER = b"1" * 32, b"2" * 32


@asynccontextmanager
async def worker(secret: bytes = ONE, **fields: Any) -> AsyncGenerator[tuple[Desk, Backend]]:
    """A process with that secret."""
    async with guarded(**fields) as (at, backend):
        at.admission._contexts.share(secret)
        yield at, backend


async def visit(
    at: Desk, name: str = "open.example", session: SessionTicket | None = None, **more: Any
) -> tuple[bool, list[SessionTicket]]:
    """Ask once. Whether a session went on, and the tickets of the next one."""
    tickets: list[SessionTicket] = []
    async with http3(at.port, name, session_ticket=session, **more) as client:
        client.quic._session_ticket_handler = tickets.append
        assert client.quic.tls is not None
        client.quic.tls.new_session_ticket_cb = tickets.append
        assert [each.status for each in await ask(client, name)] == [200]
        return client.quic.tls.session_resumed, tickets


@looped
async def test_another_process_goes_on_with_what_one_began() -> None:
    async with worker() as (one, _), worker() as (two, _), worker(OTHER) as (stranger, _):
        resumed, tickets = await visit(one)
        assert not resumed
        [ticket] = tickets
        assert ticket.max_early_data_size is None
        resumed, [following] = await visit(two, session=ticket)
        assert resumed
        assert (await visit(one, session=following))[0]
        assert not (await visit(stranger, session=ticket))[0]


@looped
async def test_a_renewed_certificate_and_no_other_secret_lets_sessions_go_on() -> None:
    async with worker() as (at, _):
        _, [ticket] = await visit(at)
        at.admission._contexts.learn([replace(HOSTS)])
        assert (await visit(at, session=ticket))[0]
        at.admission._contexts.share(OTHER)
        resumed, [following] = await visit(at, session=ticket)
        assert not resumed
        assert (await visit(at, session=following))[0]


@looped
async def test_who_has_to_show_a_certificate_shows_it_each_time(tmp_path: Path) -> None:
    file, _ = OURS.client(tmp_path, "alice")
    async with worker() as (at, backend):
        _, [ticket] = await visit(at)
        forged = replace(ticket, server_name="a.example")
        assert await visit(at, "a.example", forged, **showing(file)) == (False, [])
        assert backend.said("x-marchproxy-client-subject") == "CN=alice"
        # A session of before the host wanted any is none now.
        _, [ticket] = await visit(at, "open.example")
        apply(at, backend, openly={"client_ca": OURS.pem})
        async with http3(at.port, "open.example", session_ticket=ticket) as client:
            await until(client.gone.is_set)


@looped
async def test_nothing_is_taken_early(tmp_path: Path) -> None:
    async with worker() as (at, backend):
        _, [ticket] = await visit(at)
        backend.heads.clear()
        assert ticket.other_extensions
        early = replace(ticket, max_early_data_size=MAX_EARLY_DATA)
        client = Http3Client(at.port, "open.example", "127.0.0.1", session_ticket=early)
        try:
            await client.connect()
            assert not client.quic.tls.early_data_accepted
            assert not client.quic.tls.session_resumed
            assert [each.status for each in await ask(client, "open.example")] == [200]
        finally:
            client.close()
        assert len(backend.heads) == 1
