"""Tunnels on their way to the kernel, which is played here; tests/namespace has the real one."""

import asyncio
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, cast

import pytest

from marchproxy.dataplane.admission.handover import Handover
from marchproxy.dataplane.admission.tunnels import Tunnel
from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.kernel.handoff import Draining, Progress, TunnelFacts
from marchproxy.dataplane.kernel.joining import HandoffRefusal
from marchproxy.dataplane.kernel.tier import KernelTier
from marchproxy.dataplane.kernel.tunnels import HeldTunnel
from marchproxy.dataplane.kernel.tunnels import Tunnel as Remembered
from marchproxy.dataplane.proxy.ledger import Ledger
from marchproxy.dataplane.proxy.relay import Relay
from marchproxy.model.errors import MarchproxyError
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from tests.dataplane import facts
from tests.dataplane.loops import looped, until
from tests.dataplane.plans import backend, listener, plan, rule

HERE = ip_address("127.0.0.1")


FAILING = 7


class Emptying(Draining):
    """Drained after some looks."""

    def __init__(self, needed: float = 3) -> None:
        self.looks = 0
        self.needed = needed
        self.abandoned = 0

    @property
    def id(self) -> int:
        return 1

    def advance(self) -> Progress:
        self.looks += 1
        if self.needed == self.looks == FAILING:
            raise MarchproxyError("no such map")
        return Progress.DRAINING if self.looks < self.needed else Progress.HANDED_OFF

    def abandon(self) -> None:
        self.abandoned += 1


class Kernel:
    """A tier, its handoff and its table at once."""

    def __init__(self, outcome: Draining | HandoffRefusal | Exception) -> None:
        self.outcome = outcome
        self.told: list[TunnelFacts] = []
        self.held: list[HeldTunnel] = []
        self.ended: list[Reason | None] = []

    @property
    def table(self) -> "Kernel":
        return self

    def handoff(self) -> "Kernel":
        if isinstance(self.outcome, MarchproxyError):
            raise self.outcome
        return self

    def upstream_ports(self) -> "Kernel":
        return self

    def report(self, event: object) -> None:
        raise AssertionError(event)

    async def mapping_number(self, name: str) -> int:
        return len(name)

    def attempt(
        self, client: socket.socket, upstream: socket.socket, given: TunnelFacts
    ) -> Draining | HandoffRefusal:
        self.told.append(given)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def end_tunnels(self, judge: Callable[[Any, HeldTunnel], Reason | None], report: object) -> None:
        self.ended = [judge(facts.flow(), held) for held in self.held]


def tunnel() -> tuple[Tunnel, socket.socket]:
    """One that relays nothing, and its client."""
    ledger = Ledger()
    ledger.adopt(plan(listener(80, rule(backend(1)))), 3)
    query, answer = ledger.decide(Transport.TCP, HERE, HERE, 80)
    conversation = ledger.begin(query, 5000, answer, "www.example.com")
    made = Tunnel(conversation, Verified("vault", "7", datetime(2030, 1, 1, tzinfo=UTC)), None)
    ours, theirs = socket.socketpair()
    up, down = socket.socketpair()
    for sock in (ours, up):
        sock.setblocking(False)
    down.close()
    made.relay = Relay(ours, up, conversation, lambda _: None)
    return made, theirs


def handover(kernel: Kernel) -> Handover:
    made = Handover(cast(KernelTier, kernel))
    made.start()
    return made


async def offered(
    kernel: Kernel, made: Handover, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tunnel, list[str]]:
    """A tunnel offered until the kernel was asked."""
    monkeypatch.setattr("marchproxy.dataplane.admission.handover.lift_limits", lambda *socks: None)
    each, client = tunnel()
    gone: list[str] = []
    made.offer(each, lambda: gone.append("gone"))
    # First the mapping gets a number.
    assert kernel.told == []
    await until(lambda: bool(made._numbers))
    client.close()
    return each, gone


@looped
async def test_the_kernel_is_told_what_is_known_and_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    draining = Emptying()
    kernel = Kernel(draining)
    made = handover(kernel)
    each, gone = await offered(kernel, made, monkeypatch)
    assert gone == ["gone"]
    assert each.relay is not None
    assert each.relay.ended
    (told,) = kernel.told
    assert (told.id, told.mapping, told.revision) == (each.conversation.number, 1, 3)
    assert told.tunnel == Remembered("vault", "7", "www.example.com", 1893456000)
    await made.close()
    assert (draining.looks, draining.abandoned) == (3, 0)
    each.relay.client.close()
    each.relay.upstream.close()


@pytest.mark.parametrize(
    ("outcome", "stays"),
    [
        (HandoffRefusal.BACKLOG, False),
        (HandoffRefusal.SACK, True),
        (ValueError("names too long"), True),
    ],
)
@looped
async def test_a_refusal_is_final_unless_it_passes(
    outcome: HandoffRefusal | Exception, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(outcome)
    made = handover(kernel)
    each, gone = await offered(kernel, made, monkeypatch)
    assert (gone, each.stays) == ([], stays)
    assert each.relay is not None
    each.relay.end(Reason.CLOSED)
    await made.close()


@looped
async def test_where_the_kernel_tells_too_little_all_stays_here() -> None:
    kernel = Kernel(MarchproxyError("no BTF"))
    made = handover(kernel)
    each, client = tunnel()
    made.offer(each, lambda: None)
    await asyncio.sleep(0)
    assert (kernel.told, made.revoke("7")) == ([], 0)
    assert each.relay is not None
    each.relay.end(Reason.CLOSED)
    client.close()


@looped
async def test_tunnels_in_the_kernel_end_with_their_credential_or_the_plan() -> None:
    kernel = Kernel(HandoffRefusal.SACK)
    kernel.held = [
        HeldTunnel(1, b"", Remembered("vault", "7", "a.test")),
        HeldTunnel(2, b"", Remembered("vault", "8", "b.test")),
    ]
    made = handover(kernel)
    assert made.revoke("7") == 1
    assert kernel.ended == [Reason.AUTH_REVOKED, None]
    made.end_where(lambda flow, held: Reason.POLICY_CHANGED if held.name == "b.test" else None)
    assert kernel.ended == [None, Reason.POLICY_CHANGED]


@looped
async def test_tunnels_that_have_ended_in_a_worker_end_without_a_word() -> None:
    kernel = Kernel(HandoffRefusal.SACK)
    kernel.held = [HeldTunnel(number, b"", Remembered("vault", "7", "a.test")) for number in (1, 2)]
    handover(kernel).end_untold({2})
    assert kernel.ended == [None, Reason.CUT]


@pytest.mark.parametrize("needed", [float("inf"), FAILING])
@looped
async def test_what_does_not_drain_before_the_daemon_ends_is_abandoned(
    needed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marchproxy.dataplane.admission.handover.LAST_DRAIN", 0.1)
    draining = Emptying(needed)
    made = handover(Kernel(draining))
    each, _ = await offered(cast(Kernel, made._tier), made, monkeypatch)
    await made.close()
    assert draining.abandoned == 1
    assert each.relay
    each.relay.client.close()
    each.relay.upstream.close()
