"""One connection between a socket and an application: what goes wrong in it is its own end."""

import asyncio
import logging
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.quic.connection import Connection, Path
from tests.dataplane.http.http3.peer import http3
from tests.dataplane.http.http3.test_listeners import http3_of, live, site
from tests.dataplane.http.site import answer
from tests.dataplane.loops import looped, until


@looped
async def test_what_breaks_inside_is_the_end_of_this_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with site(answer()) as (at, _), http3(at.port) as client:
        await client.get()
        connection = live(at).quic

        def broken(*_: object) -> None:
            raise AssertionError("found by a stranger")

        connection.engine.receive_datagram = broken  # type: ignore[assignment, method-assign]
        with caplog.at_level(logging.ERROR):
            client.ask()
            await until(lambda: not http3_of(at).live)
        assert "AssertionError" in caplog.text
        assert "Traceback" not in caplog.text
        async with http3(at.port) as other:
            assert (await other.get()).status == 200


@looped
async def test_a_client_that_disappears_is_forgotten_after_a_while() -> None:
    async with site(answer()) as (at, _), http3(at.port, idle_timeout=2.0) as client:
        await client.get()
        await until(lambda: bool(http3_of(at).live))
        client.stop()
        await until(lambda: not http3_of(at).live)
        endpoint = next(iter(http3_of(at)._open.values()))
        await until(lambda: not endpoint._every and not endpoint._by_id)


@looped
async def test_answers_come_from_the_address_that_was_asked() -> None:
    async with site(answer()) as (at, _), http3(at.port) as client:
        await client.get()
        assert live(at).quic.path == Path(client.socket.getsockname(), ip_address("127.0.0.1"))
        assert isinstance(live(at).quic, Connection)
        await asyncio.sleep(0)
