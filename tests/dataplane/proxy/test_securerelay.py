"""Bytes through a relay whose client speaks TLS: every one of them, both ways, whatever the ends do."""

import asyncio
import hashlib
import os
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from marchproxy.dataplane.credentials.contexts import server_context
from marchproxy.dataplane.proxy.ledger import Conversation, Ledger
from marchproxy.dataplane.proxy.protocol.secured import Secured
from marchproxy.dataplane.proxy.relay import READ_SIZE
from marchproxy.dataplane.proxy.securerelay import SecureRelay
from marchproxy.model.address import parse_ip
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from tests.certificates import identity, trusting
from tests.dataplane.loops import looped, until
from tests.dataplane.plans import backend, listener, plan, rule
from tests.dataplane.proxy.protocol.agreeing import agree

CONTEXT = server_context(identity())
SIZE = 8 << 20
HERE = parse_ip("127.0.0.1")


def conversation() -> Conversation:
    ledger = Ledger()
    ledger.adopt(plan(listener(80, rule(backend(1)))), 3)
    query, answer = ledger.decide(Transport.TCP, HERE, HERE, 80)
    return ledger.begin(query, 5000, answer)


class Bridge:
    """A client under TLS that has agreed, a server in the clear, and the relay between them, not started."""

    def __init__(self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self.client, ours = socket.socketpair()
        self.server, upstream = socket.socketpair()
        for sock in (self.client, ours, self.server, upstream):
            sock.setblocking(False)
        context = trusting()
        context.maximum_version = version
        self.tls = Secured(context, server=False, server_name="proxy.example")
        self.secured = Secured(CONTEXT)
        agree(self.secured, self.tls)
        self.ends: list[Reason] = []
        self.conversation = conversation()
        self._ours, self._upstream = ours, upstream
        self._loop = asyncio.get_running_loop()

    def make(self, opened: bytes = b"") -> SecureRelay:
        return SecureRelay(
            self._ours, self.secured, self._upstream, self.conversation, self.ends.append, None, opened
        )

    async def say(self, data: bytes) -> None:
        """From the client."""
        await self._loop.sock_sendall(self.client, self.tls.seal(data))

    async def hear(self) -> bytes:
        """What comes to the client; empty: the server's end, by close_notify. Raises where there is none."""
        while not self.tls.ended:
            data = await self._loop.sock_recv(self.client, 65536)
            if not data:
                raise EOFError("FIN without close_notify")
            if opened := bytes(self.tls.open(data)):
                return opened
        return b""

    async def hear_all(self) -> str:
        digest = hashlib.sha256()
        while data := await self.hear():
            digest.update(data)
        return digest.hexdigest()

    async def end(self) -> None:
        """The client sends no more."""
        await self._loop.sock_sendall(self.client, self.tls.close())

    async def receive_all(self) -> str:
        """What comes to the server."""
        digest = hashlib.sha256()
        while data := await self._loop.sock_recv(self.server, 65536):
            digest.update(data)
        return digest.hexdigest()

    async def answer(self, data: bytes) -> None:
        """From the server, to the end."""
        await self._loop.sock_sendall(self.server, data)
        self.server.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.client.close()
        self.server.close()


@asynccontextmanager
async def bridge(
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, ahead: bytes = b"", opened: bytes = b""
) -> AsyncGenerator[tuple[Bridge, SecureRelay]]:
    made = Bridge(version)
    relay = made.make(opened)
    relay.start(ahead)
    try:
        yield made, relay
    finally:
        relay.end(Reason.RESET)
        made.close()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@looped
async def test_large_transfers_both_ways_at_once_arrive_whole(version: ssl.TLSVersion) -> None:
    up, down = os.urandom(SIZE), os.urandom(SIZE + 12345)
    async with bridge(version) as (at, relay):

        async def upload() -> None:
            for start in range(0, SIZE, 100_000):
                await at.say(up[start : start + 100_000])
            await at.end()

        _, _, got, heard = await asyncio.gather(upload(), at.answer(down), at.receive_all(), at.hear_all())
        assert (got, heard) == (digest(up), digest(down))
        await until(lambda: at.ends == [Reason.CLOSED])
        assert at.conversation.sent.bytes == len(up)
        assert at.conversation.received.bytes == len(down)
        assert relay.joinable is False


@looped
async def test_an_upload_ended_by_half_close_is_answered() -> None:
    async with bridge() as (at, _):
        await at.say(b"question")
        await at.end()
        assert await at.receive_all() == digest(b"question")
        assert not at.ends
        await at.answer(b"answer")
        assert await at.hear_all() == digest(b"answer")
        await until(lambda: at.ends == [Reason.CLOSED])


@looped
async def test_a_download_ended_by_half_close_leaves_the_upload_open() -> None:
    async with bridge() as (at, _):
        await at.answer(b"bye")
        assert await at.hear_all() == digest(b"bye")
        # The FIN follows close_notify.
        assert await asyncio.get_running_loop().sock_recv(at.client, 1) == b""
        await at.say(b"one more thing")
        await at.end()
        assert await at.receive_all() == digest(b"one more thing")
        await until(lambda: at.ends == [Reason.CLOSED])


@looped
async def test_what_was_read_before_comes_first_and_in_order() -> None:
    async with bridge(ahead=b"ahead ", opened=b"opened ") as (at, _):
        await at.say(b"said")
        await at.end()
        assert await at.receive_all() == digest(b"ahead opened said")


@looped
async def test_an_end_that_came_before_the_relay_began_is_passed_on() -> None:
    made = Bridge()
    opened = bytes(made.secured.open(made.tls.seal(b"all of it") + made.tls.close()))
    relay = made.make(opened)
    relay.start()
    assert await made.receive_all() == digest(b"all of it")
    relay.end(Reason.RESET)
    made.close()


@looped
async def test_more_ahead_than_the_server_takes_loses_nothing() -> None:
    ahead, opened = os.urandom(1 << 20), os.urandom(20_000)
    async with bridge(ahead=ahead, opened=opened) as (at, _):
        await at.say(b"behind")
        await at.end()
        assert await at.receive_all() == digest(ahead + opened + b"behind")


@looped
async def test_a_client_whose_end_is_a_fin_alone_is_passed_on_as_a_reset() -> None:
    """Anybody on the way can send a FIN; the server must not take what came for all there was."""
    async with bridge() as (at, _):
        await at.say(b"half of")
        assert await asyncio.get_running_loop().sock_recv(at.server, 100) == b"half of"
        at.client.shutdown(socket.SHUT_WR)
        await until(lambda: at.ends == [Reason.RESET])


@looped
async def test_a_fin_alone_will_do_once_the_client_has_heard_the_end() -> None:
    async with bridge() as (at, _):
        await at.answer(b"bye")
        await at.hear_all()
        at.client.shutdown(socket.SHUT_WR)
        assert await at.receive_all() == digest(b"")
        await until(lambda: at.ends == [Reason.CLOSED])


@looped
async def test_what_is_no_tls_any_more_ends_it() -> None:
    async with bridge() as (at, _):
        await asyncio.get_running_loop().sock_sendall(at.client, b"\x17\x03\x03\x00\x20" + bytes(32))
        await until(lambda: at.ends == [Reason.RESET])


@pytest.mark.parametrize("slow", ["client", "server"])
@looped
async def test_a_reader_that_stops_stops_the_sender(slow: str) -> None:
    """What is held meanwhile is one read at most."""
    async with bridge() as (at, relay):
        loop, piece = asyncio.get_running_loop(), os.urandom(READ_SIZE)

        async def pour() -> None:
            while True:
                await (at.say(piece) if slow == "server" else loop.sock_sendall(at.server, piece))

        pouring = asyncio.create_task(pour())
        counted = -1
        carried = at.conversation.sent if slow == "server" else at.conversation.received
        while carried.bytes != counted:
            counted = carried.bytes
            await asyncio.sleep(0.05)
        held = [pump._held for pump in relay._pumps]
        assert sum(len(each) for each in held if isinstance(each, memoryview)) <= READ_SIZE + 4096
        assert any(held)
        assert at.secured._incoming.pending <= 65536
        assert at.secured._outgoing.pending == 0
        if slow == "server":
            await loop.sock_recv(at.server, 1 << 20)
        else:
            while carried.bytes == counted:
                assert await at.hear()
        await until(lambda: carried.bytes > counted)
        pouring.cancel()


@looped
async def test_a_close_notify_that_finds_no_room_waits_for_it() -> None:
    async with bridge() as (at, _):
        data = os.urandom(2 << 20)
        answering = asyncio.create_task(at.answer(data))
        await asyncio.sleep(0.1)
        assert not at.tls.ended
        assert await at.hear_all() == digest(data)
        await answering
