"""passing: what was diverted gets on where its TLS names a destination's host. (The kernel diverts.)"""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from marchproxy.dataplane.admission.listeningsockets import ListeningSockets
from marchproxy.dataplane.admission.service import Admission
from marchproxy.dataplane.names.found import Failure, Found, LookupFailed
from marchproxy.dataplane.records import Event
from marchproxy.model.entities import Mapping, WithoutSni
from tests.dataplane.admission.desk import LIMITS, Keys
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.protocol.hellos import real_hello
from tests.policy.build import mapping, plan, service

ADDRESS = "127.0.0.9"
"""Stands for where a client wanted to go: here it is where both the diverted socket and the server are."""


async def find(name: str) -> Found:
    raise LookupFailed(Failure.NXDOMAIN)


class Passing:
    """Admission with one diverted socket, and what it reported."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.events: list[Event] = []

    async def ask(self, data: bytes) -> bytes:
        """What a client that says `data` gets to read."""
        reader, writer = await asyncio.open_connection(ADDRESS, self.port)
        writer.write(data)
        writer.write_eof()
        try:
            return await reader.read()
        finally:
            writer.close()

    def reasons(self) -> list[str]:
        return [event.decision.reason.name for event in self.events]


@asynccontextmanager
async def passing(rule: Mapping, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Passing]:
    """The upstream connection goes to an echo server, wherever it is meant to go."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"echo:" + await reader.read())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    place = server.sockets[0].getsockname()

    async def connect(address: object, port: int, until: float | None) -> socket.socket:
        assert str(address) == ADDRESS
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, place)
        return sock

    monkeypatch.setattr("marchproxy.dataplane.admission.service.connect", connect)
    with socket.create_server((ADDRESS, 0)) as diverted:
        diverted.setblocking(False)
        sockets = ListeningSockets(diverted=lambda: (diverted,))
        admission = Admission(find, Keys(), limits=LIMITS, sockets=sockets)
        made = Passing(diverted.getsockname()[1])
        admission.start(made.events.append)
        hosts = service("shop", ADDRESS, "*.shop.test")
        neighbour = service("neighbour", ADDRESS, "*.neighbour.test")
        elsewhere = mapping("elsewhere", "lan", "neighbour", ports="1")
        lan = service("lan", "127.0.0.0/8")
        admission.prepare(plan(lan, hosts, neighbour, rule, elsewhere)).commit(1)
        try:
            yield made
        finally:
            await admission.close()
            server.close()
            await server.wait_closed()


def wanted(without: WithoutSni = WithoutSni.DENY) -> Mapping:
    return replace(mapping("tls", "lan", "shop"), sni=True, sni_missing=without)


@looped
async def test_the_right_name_goes_on_with_all_that_was_read() -> None:
    hello = real_hello("www.shop.test")
    with pytest.MonkeyPatch.context() as patch:
        async with passing(wanted(), patch) as at:
            assert await at.ask(hello + b"more") == b"echo:" + hello + b"more"
            await until(lambda: "CLOSED" in at.reasons())
            assert at.events[0].decision.name == "www.shop.test"


@pytest.mark.parametrize("name", ["www.other.test", "www.neighbour.test"])
@looped
async def test_another_name_is_told_by_an_alert(name: str) -> None:
    """Also that of a service which has the same address and is not the mapping's."""
    with pytest.MonkeyPatch.context() as patch:
        async with passing(wanted(), patch) as at:
            assert (await at.ask(real_hello(name)))[:1] == b"\x15"
            assert at.reasons() == ["SNI_MISMATCH"]


@looped
async def test_no_name_and_no_tls_are_as_the_mapping_says() -> None:
    with pytest.MonkeyPatch.context() as patch:
        async with passing(wanted(), patch) as at:
            await at.ask(real_hello(None))
            await at.ask(b"GET / HTTP/1.0\r\n\r\n")
            assert at.reasons() == ["SNI_MISSING"] * 2
    with pytest.MonkeyPatch.context() as patch:
        async with passing(wanted(WithoutSni.ALLOW), patch) as at:
            assert await at.ask(b"GET / HTTP/1.0\r\n\r\n") == b"echo:GET / HTTP/1.0\r\n\r\n"


@looped
async def test_a_mapping_that_is_gone_meanwhile_lets_nobody_through() -> None:
    with pytest.MonkeyPatch.context() as patch:
        async with passing(mapping("other", "shop", "lan"), patch) as at:
            await at.ask(real_hello("www.shop.test"))
            assert at.reasons() == ["NO_MAPPING"]
