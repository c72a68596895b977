"""worker: tunnels that it has offered, whatever happens until the daemon answers, which is played here."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest

from marchproxy.dataplane.admission.tunnels import TRIES, Tunnel
from marchproxy.dataplane.admission.wire import Wire
from marchproxy.dataplane.workers import messages
from marchproxy.dataplane.workers.channel import Channel
from marchproxy.dataplane.workers.worker import Remote, Worker
from marchproxy.model.protocol import Transport
from tests.dataplane.loops import looped, until
from tests.dataplane.plans import backend, listener, plan, rule

HERE = ip_address("127.0.0.1")


class Daemon:
    """The other end of a worker that has one tunnel, and both peers of that."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.heard: list[Any] = []
        self.channel = Channel(ours, lambda message, _: self.heard.append(message), lambda: None)
        self.worker = Worker(theirs)
        self.tunnels = self.worker._admission._tunnels
        ledger = self.tunnels._ledger
        ledger.adopt(plan(listener(80, rule(backend(1)))), 3)
        query, answer = ledger.decide(Transport.TCP, HERE, HERE, 80)
        self.tunnel = Tunnel(ledger.begin(query, 5000, answer), None, None, ledger.evaluator)
        pairs = [socket.socketpair() for _ in range(2)]
        self.client, self.server = (theirs for _, theirs in pairs)
        for pair in pairs:
            for sock in pair:
                sock.setblocking(False)
        ends = pairs[0][0], pairs[1][0]
        gate = self.worker._admission._gate
        assert gate.enter(HERE)
        self.tunnels.open(
            self.tunnel,
            Wire(ends[0]),
            ends[1],
            backend(1),
            ahead=b"",
            bound=None,
            on_end=lambda: gate.leave(HERE),
        )
        assert self.tunnel.relay
        self.relay = self.tunnel.relay

    def poll(self) -> None:
        """What the worker does about each quarter of a second."""
        self.tunnels.offer(0, 1e-9)

    @property
    def offers(self) -> list[messages.Offered]:
        return [each for each in self.heard if isinstance(each, messages.Offered)]

    async def offered(self) -> messages.Offered:
        """Until there is an offer: the last one."""
        self.poll()
        await until(lambda: bool(self.offers), "an offer")
        return self.offers[-1]

    def answer(self, offer: messages.Offered, value: object) -> None:
        self.channel.say(messages.Answer(offer.number, value))

    async def relays(self) -> bool:
        """Whether a word gets through."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.client, b"word")
        return await loop.sock_recv(self.server, 10) == b"word"


@asynccontextmanager
async def daemon(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Daemon]:
    for name in ("limit_backlog", "lift_limits"):
        monkeypatch.setattr(f"marchproxy.dataplane.workers.worker.{name}", lambda *socks: None)
    made = Daemon()
    remote = made.worker._admission._handover
    assert isinstance(remote, Remote)
    monkeypatch.setattr(remote, "_ports", object())
    try:
        yield made
    finally:
        made.tunnels.close()
        made.channel.close()
        await until(made.worker.ended.is_set, "the worker to end")
        for sock in (made.client, made.server):
            sock.close()


@looped
async def test_a_tunnel_is_offered_once_until_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with daemon(monkeypatch) as made:
        first = await made.offered()
        for _ in range(5):
            made.poll()
        assert made.tunnel.tries == 1
        made.answer(first, True)
        assert await made.relays()
        assert made.offers == [first]
        made.poll()
        await until(lambda: len(made.offers) == 2, "another offer after the answer")
        made.answer(made.offers[1], False)
        assert await made.relays()
        assert made.tunnel.stays


@looped
async def test_a_tunnel_that_the_kernel_has_is_read_by_nobody_here(monkeypatch: pytest.MonkeyPatch) -> None:
    async with daemon(monkeypatch) as made:
        offer = await made.offered()
        # Whatever had started it again meanwhile.
        made.relay.start()
        made.answer(offer, None)
        await until(lambda: made.relay.client.fileno() < 0, "the worker to let go")
        assert made.relay.ended
        assert made.relay.upstream.fileno() < 0
        assert not made.tunnels.live


@looped
async def test_what_ended_while_it_was_offered_ends_in_the_kernel_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with daemon(monkeypatch) as made:
        offer = await made.offered()
        assert offer.edition == 0
        made.tunnels.cut(frozenset({offer.ripe.number}))
        made.answer(offer, None)
        await until(lambda: messages.Cut(frozenset({offer.ripe.number})) in made.heard, "the daemon to hear")


@pytest.mark.parametrize("refusal", [True, False])
@looped
async def test_what_ended_while_it_was_offered_and_refused_is_over(
    refusal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with daemon(monkeypatch) as made:
        offer = await made.offered()
        made.tunnels.cut(frozenset({offer.ripe.number}))
        made.answer(offer, refusal)
        await until(lambda: not made.tunnel.offered, "the answer")
        assert not any(isinstance(each, messages.Cut) for each in made.heard)


@looped
async def test_without_a_daemon_an_offered_tunnel_goes_on_and_no_other_is_paused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with daemon(monkeypatch) as made:
        await made.offered()
        made.channel.close()
        assert await made.relays()
        for _ in range(TRIES):
            made.poll()
            assert await made.relays()
        assert not made.tunnel.offered
