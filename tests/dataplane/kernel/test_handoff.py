"""handoff: two real connections over real links become a flow, and what user space holds is right.

What becomes of many of them over bad links is in tests/handoff.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from marchproxy.dataplane.carried import Load
from marchproxy.dataplane.kernel.clock import KernelClock
from marchproxy.dataplane.kernel.handoff import (
    Draining,
    Handoff,
    Progress,
    TunnelFacts,
    new_flow_id,
)
from marchproxy.dataplane.kernel.joining import HandoffRefusal
from marchproxy.dataplane.kernel.tcpsocket import TCP_REPAIR, Blocker
from marchproxy.dataplane.kernel.tier import KernelTier
from marchproxy.dataplane.kernel.tunnels import Tunnel
from marchproxy.dataplane.naming import ServiceNames
from marchproxy.dataplane.records import Event, EventKind, Flow, FlowState
from marchproxy.model.entities import Interface, Role
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Plan
from rig import Rig, wait_for
from rig.lifecycle import BPFFS, remove_tree
from tests.dataplane.loops import PATIENCE
from tests.policy import build
from tests.policy.build import mapping, service

pytestmark = pytest.mark.requires("root", "bpf", "btf", "bpffs", "ringbuf", "netns", "veth", "tcx", "ipv6")

PORT, SERVER_PORT = 9000, 9001
INTERFACES = (Interface("inside0", Role.INSIDE), Interface("outside0", Role.OUTSIDE))
ALLOWED = replace(
    build.plan(service("c", "10.1.0.2"), service("s", "10.2.0.2", port=1), mapping("t", "c", "s", "*:7000")),
    interfaces=INTERFACES,
)
NOTHING = Plan(interfaces=INTERFACES)
RESET = struct.pack("ii", 1, 0)
OPENER = Tunnel("default/clients", "token-7", "www.example.org", 1_900_000_000)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as made:
        yield made


class Bench:
    """Kernel tiers in the middle host, one after the other over the same pins."""

    def __init__(self, rig: Rig, version: int) -> None:
        self.rig = rig
        self.listen, self.server = {4: ("10.1.0.1", "10.2.0.2"), 6: ("fd01::1", "fd02::2")}[version]
        self.events: list[Event] = []

    def run(self, scenario: Callable[["Daemon"], Awaitable[None]]) -> None:
        """A daemon's life."""

        async def play() -> None:
            tier = KernelTier.create()
            try:
                await tier.start(self.events.append)
                await tier.apply(ALLOWED, 3)
                await scenario(Daemon(self, tier))
            finally:
                await tier.close()

        self.rig.middle.call(lambda: asyncio.run(play()))


class Daemon:
    """A tier, and who hands tunnels to it."""

    def __init__(self, bench: Bench, tier: KernelTier) -> None:
        self.bench = bench
        self.tier = tier
        self.handoff: Handoff = tier.handoff()
        self.ports = tier.upstream_ports()

    def open(self) -> "Open":
        return Open(self)

    async def flows(self) -> list[Flow]:
        return list(await self.tier.flows(10))

    async def ends(self) -> list[tuple[Reason, int, int]]:
        """Of flows that have ended by now: the reason, and the bytes each way."""
        await self.tier.poll()
        return [
            (event.decision.reason, event.flow.sent.bytes, event.flow.received.bytes)
            for event in self.bench.events
            if event.kind is EventKind.FLOW_END and event.flow
        ]


class Open:
    """A tunnel that user space holds: both its sockets, and both its ends."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon, bench = daemon, daemon.bench
        family = socket.AF_INET6 if ":" in bench.listen else socket.AF_INET
        self.id, self.started = new_flow_id(), KernelClock().monotonic
        with (
            socket.create_server((bench.listen, PORT), family=family) as listener,
            bench.rig.server.socket(family, socket.SOCK_STREAM) as serving,
        ):
            serving.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            serving.bind((bench.server, SERVER_PORT))
            serving.listen()
            self.client = bench.rig.client.socket(family, socket.SOCK_STREAM)
            self.client.connect((bench.listen, PORT))
            self.near, _ = listener.accept()
            self.upstream = daemon.ports.open(ip_address(bench.server), SERVER_PORT)
            self.server, _ = serving.accept()
        for sock in (self.client, self.server):
            sock.settimeout(PATIENCE)
        # The accepting side of a handshake may be ahead of the connecting one.
        wait_for(lambda: bool(self.near.getpeername() and self.upstream.getpeername()), "both connections")

    def attempt(self) -> Draining | HandoffRefusal:
        number = self._daemon.tier._names.number("t")
        return self._daemon.handoff.attempt(
            self.near, self.upstream, TunnelFacts(self.id, number, 3, self.started, OPENER)
        )

    async def hand_off(self) -> Progress:
        """To the end of draining."""
        draining = self.attempt()
        assert isinstance(draining, Draining), draining
        while (progress := draining.advance()) is Progress.DRAINING:
            await asyncio.sleep(0.001)
        assert self.near.fileno() == self.upstream.fileno() == -1
        return progress

    def talk(self) -> None:
        """A few bytes each way."""
        for source, target in ((self.client, self.server), (self.server, self.client)):
            source.sendall(b"to the other side")
            assert receive(target, 17) == b"to the other side"

    def close(self) -> None:
        for sock in (self.client, self.server, self.near, self.upstream):
            sock.close()


def receive(sock: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size and (piece := sock.recv(size - len(received))):
        received += piece
    return received


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def bench(rig: Rig, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    pins = BPFFS / f"{rig.name}-handoff"
    monkeypatch.setenv("MARCHPROXY_BPFFS", str(pins))
    monkeypatch.setenv("MARCHPROXY_RUNTIME_DIR", str(rig.files))
    try:
        yield Bench(rig, request.param)
    finally:
        remove_tree(pins)


def test_a_tunnel_goes_on_without_sockets_and_is_listed_with_who_opened_it(bench: Bench) -> None:
    async def scenario(daemon: Daemon) -> None:
        opened = daemon.open()
        assert await opened.hand_off() is Progress.HANDED_OFF
        opened.talk()
        (flow,) = await daemon.flows()
        decision = flow.decision
        assert (decision.id, decision.reason, decision.revision) == (opened.id, Reason.HANDED_OFF, 3)
        assert (decision.mapping, decision.source_service) == ("t", "default/clients")
        assert (decision.name, flow.state) == ("www.example.org", FlowState.ESTABLISHED)
        assert (str(flow.backend), flow.backend_port) == (bench.server, SERVER_PORT)
        assert daemon.tier.counters()[Reason.HANDED_OFF].packets > 0
        opened.close()

    bench.run(scenario)


def test_what_sockets_have_carried_is_not_counted_again(bench: Bench) -> None:
    async def scenario(daemon: Daemon) -> None:
        names = ServiceNames(ALLOWED)
        await daemon.tier.count(lambda: names)
        opened = daemon.open()
        opened.client.sendall(bytes(5000))
        opened.upstream.sendall(receive(opened.near, 5000))
        assert receive(opened.server, 5000) == bytes(5000)
        assert await opened.hand_off() is Progress.HANDED_OFF
        before = (await daemon.tier.carried(names)).mappings["t"]
        (flow,) = await daemon.flows()
        assert flow.sent.bytes > 5000
        assert before.flows == 0, "it is a flow of those who began it"
        assert before.sent_bytes < 500, "acknowledgements"
        opened.talk()
        (later,) = await daemon.flows()
        after = await daemon.tier.carried(names)
        assert later.sent.bytes - flow.sent.bytes >= 17
        assert after.mappings["t"].sent_bytes - before.sent_bytes >= later.sent.bytes - flow.sent.bytes
        assert {service for service, _ in after.services} >= {"default/clients"}
        assert await daemon.tier.cut(frozenset({opened.id})) == {opened.id}
        ended = (await daemon.tier.carried(names)).mappings["t"]
        assert 0 <= ended.sent_bytes - after.mappings["t"].sent_bytes < 500
        opened.close()

    bench.run(scenario)


def test_a_tunnel_that_is_taken_back_is_not_left_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(daemon: Daemon) -> None:
        names = ServiceNames(ALLOWED)
        await daemon.tier.count(lambda: names)
        ending = Ending(daemon, "client")
        monkeypatch.setattr(daemon.handoff, "_enter", ending.enter)
        assert ending.opened.attempt() is HandoffRefusal.CLOSED
        assert (await daemon.tier.carried(names)).mappings.get("t", Load()) == Load()
        ending.opened.close()

    bench.run(scenario)


def test_bytes_that_wait_in_any_queue_arrive_in_order(bench: Bench) -> None:
    async def scenario(daemon: Daemon) -> None:
        opened = daemon.open()
        opened.client.sendall(b"unread by the relay, ")
        opened.upstream.send(b"written by the relay, ")
        opened.near.send(b"and back, ")
        draining = opened.attempt()
        assert isinstance(draining, Draining)
        opened.client.sendall(b"forwarded")
        opened.server.sendall(b"forwarded")
        while (progress := draining.advance()) is Progress.DRAINING:
            await asyncio.sleep(0.001)
        assert progress is Progress.HANDED_OFF
        wanted = b"written by the relay, unread by the relay, forwarded"
        assert receive(opened.server, len(wanted)) == wanted
        assert receive(opened.client, 19) == b"and back, forwarded"
        opened.close()

    bench.run(scenario)


def test_a_process_that_dies_after_the_last_byte_ends_no_tunnel(bench: Bench) -> None:
    async def scenario(daemon: Daemon) -> None:
        opened = daemon.open()
        opened.near.send(b"the last byte")
        draining = opened.attempt()
        assert isinstance(draining, Draining)
        while not opened.near.getsockopt(socket.IPPROTO_TCP, TCP_REPAIR):
            assert draining.advance() is Progress.DRAINING
            await asyncio.sleep(0.001)
        assert receive(opened.client, 13) == b"the last byte"
        for sock in (opened.near, opened.upstream):
            sock.close()
        opened.talk()
        opened.close()

    bench.run(scenario)


@pytest.mark.parametrize("moment", ["before", "unread", "during", "after"])
@pytest.mark.parametrize("first", ["client", "server"])
def test_a_half_close_is_one_whenever_it_comes(bench: Bench, moment: str, first: str) -> None:
    async def scenario(daemon: Daemon) -> None:
        opened = daemon.open()
        closer, other = opened.client, opened.server
        inner, outer = opened.near, opened.upstream
        if first == "server":
            closer, other, inner, outer = other, closer, outer, inner
        inner.setblocking(True)
        if moment in ("before", "unread"):
            closer.shutdown(socket.SHUT_WR)
        if moment == "before":
            assert inner.recv(1) == b""
            outer.shutdown(socket.SHUT_WR)
            assert other.recv(1) == b""
        elif moment == "unread":
            wait_for(lambda: inner.recv(1, socket.MSG_PEEK) == b"", "the end of one direction")
        draining = opened.attempt()
        assert isinstance(draining, Draining), draining
        if moment == "during":
            closer.shutdown(socket.SHUT_WR)
        while (progress := draining.advance()) is Progress.DRAINING:
            await asyncio.sleep(0.001)
        assert progress is Progress.HANDED_OFF
        if moment == "after":
            closer.shutdown(socket.SHUT_WR)
        if moment != "before":
            assert other.recv(1) == b""
        other.sendall(b"the other direction goes on" * 1000)
        assert receive(closer, 27_000) == b"the other direction goes on" * 1000
        assert len(await daemon.flows()) == 1
        other.close()
        assert closer.recv(1) == b""
        closer.close()
        while not await daemon.ends():
            await asyncio.sleep(0.01)
        ((reason, *_),) = await daemon.ends()
        assert reason is Reason.CLOSED
        assert await daemon.flows() == []

    bench.run(scenario)


class Ending:
    """A tunnel whose `first` end has closed, and whose other end says all it has and closes, too, after the
    handoff has looked at the sockets and before there is a flow.
    """

    SAID = bytes(range(256)) * 300

    def __init__(self, daemon: Daemon, first: str) -> None:
        self.opened = opened = daemon.open()
        self.waits, self.leaves = opened.client, opened.server
        self.near_waits, self.near_leaves = opened.near, opened.upstream
        if first == "server":
            self.waits, self.leaves = self.leaves, self.waits
            self.near_waits, self.near_leaves = self.near_leaves, self.near_waits
        self.near_waits.setblocking(True)
        self.waits.shutdown(socket.SHUT_WR)
        assert self.near_waits.recv(1) == b""
        self.near_leaves.shutdown(socket.SHUT_WR)
        assert self.leaves.recv(1) == b""
        self._sockets, self._enter = daemon.handoff.sockets, daemon.handoff._enter

    def enter(self, *args: Any) -> HandoffRefusal | None:
        """For `Handoff._enter`."""
        self.leaves.sendall(self.SAID)
        self.leaves.close()
        wait_for(lambda: self._sockets.ask(self.near_leaves) is None, "the end of one connection")
        return self._enter(*args)


@pytest.mark.parametrize("first", ["client", "server"])
def test_what_ends_at_that_very_moment_is_left_to_its_sockets(
    bench: Bench, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(daemon: Daemon) -> None:
        ending = Ending(daemon, first)
        monkeypatch.setattr(daemon.handoff, "_enter", ending.enter)
        assert ending.opened.attempt() is HandoffRefusal.CLOSED
        assert await daemon.flows() == []
        ending.near_leaves.setblocking(True)
        ending.near_waits.sendall(receive(ending.near_leaves, len(ending.SAID)))
        ending.opened.near.close()
        ending.opened.upstream.close()
        assert receive(ending.waits, len(ending.SAID) + 1) == ending.SAID
        ending.opened.close()

    bench.run(scenario)


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_peer_that_knows_of_no_connection_any_more_resets_none(
    bench: Bench, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it not for the second look, that comes too late where the process is kept from running."""

    async def scenario(daemon: Daemon) -> None:
        ending = Ending(daemon, first)
        monkeypatch.setattr(daemon.handoff, "_enter", ending.enter)
        monkeypatch.setattr(daemon.handoff, "_has_ended", lambda *socks: False)
        assert await ending.opened.hand_off() in (Progress.HANDED_OFF, Progress.ENDED)
        assert receive(ending.waits, len(ending.SAID) + 1) == ending.SAID
        while not await daemon.ends():
            await asyncio.sleep(0.01)
        ((reason, *_),) = await daemon.ends()
        assert reason is Reason.CLOSED
        ending.opened.close()

    bench.run(scenario)


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_reset_ends_it_at_both_ends(bench: Bench, first: str) -> None:
    async def scenario(daemon: Daemon) -> None:
        opened = daemon.open()
        await opened.hand_off()
        opened.talk()
        ends = opened.client, opened.server
        closer, other = ends if first == "client" else reversed(ends)
        closer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        closer.close()
        with pytest.raises(ConnectionResetError):
            other.recv(1)
        ((reason, *_),) = await daemon.ends()
        assert reason is Reason.RESET
        opened.close()

    bench.run(scenario)


def test_a_reset_while_it_drains_ends_both_sockets(bench: Bench) -> None:
    async def scenario(daemon: Daemon) -> None:
        opened = daemon.open()
        opened.client.sendall(b"never read")
        draining = opened.attempt()
        assert isinstance(draining, Draining)
        opened.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        opened.client.close()
        assert draining.advance() is Progress.ENDED
        assert opened.near.fileno() == opened.upstream.fileno() == -1
        assert await daemon.flows() == []
        opened.close()

    bench.run(scenario)


def test_what_is_abandoned_while_it_drains_is_reset_on_both_sides(bench: Bench) -> None:
    async def scenario(daemon: Daemon) -> None:
        opened = daemon.open()
        opened.client.sendall(b"never read")
        draining = opened.attempt()
        assert isinstance(draining, Draining)
        draining.abandon()
        assert opened.near.fileno() == opened.upstream.fileno() == -1
        for sock in (opened.client, opened.server):
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        assert await daemon.flows() == []
        opened.close()

    bench.run(scenario)


def test_what_is_abandoned_when_the_kernel_has_it_goes_on(bench: Bench) -> None:
    async def scenario(daemon: Daemon) -> None:
        opened = daemon.open()
        draining = opened.attempt()
        assert isinstance(draining, Draining)
        while not draining._close_at:
            assert draining.advance() is Progress.DRAINING
            await asyncio.sleep(0.001)
        draining.abandon()
        opened.talk()
        opened.close()

    bench.run(scenario)


def test_the_flow_record_counts_what_user_space_relayed(bench: Bench) -> None:
    async def scenario(daemon: Daemon) -> None:
        opened = daemon.open()
        size, headers = 300_000, 52 if bench.server.startswith("10.") else 72
        for source, through, out, target in (
            (opened.client, opened.near, opened.upstream, opened.server),
            (opened.server, opened.upstream, opened.near, opened.client),
        ):
            source.sendall(bytes(1000))
            through.setblocking(True)
            out.send(receive(through, 1000))
            assert receive(target, 1000) == bytes(1000)
        await opened.hand_off()
        for source, target in ((opened.client, opened.server), (opened.server, opened.client)):
            source.sendall(bytes(size))
            assert receive(target, size) == bytes(size)
        (flow,) = await daemon.flows()
        for way in (flow.sent, flow.received):
            # An acknowledgement that names what came twice, or out of order, has some twelve bytes more.
            assert way.bytes - way.packets * headers - size - 1000 in range(0, 100, 4)
        opened.close()

    bench.run(scenario)


def test_it_survives_the_daemon_and_can_be_listed_and_cut_by_the_next(bench: Bench) -> None:
    held: list[Open] = []

    async def before(daemon: Daemon) -> None:
        opened = daemon.open()
        await opened.hand_off()
        held.append(opened)

    async def after(daemon: Daemon) -> None:
        (opened,) = held
        opened.talk()
        (flow,) = await daemon.flows()
        assert (flow.decision.id, flow.decision.source_service) == (opened.id, "default/clients")
        other = daemon.open()
        await other.hand_off()
        assert await daemon.tier.cut(frozenset({opened.id, 12345})) == {opened.id}
        ((reason, *_),) = await daemon.ends()
        assert reason is Reason.CUT
        # Neither has to speak first.
        with pytest.raises(ConnectionResetError):
            opened.client.recv(1)
        with pytest.raises(ConnectionResetError):
            opened.server.recv(1)
        other.talk()
        opened.close()
        other.close()

    bench.run(before)
    bench.run(after)


def test_a_policy_that_has_its_mapping_keeps_it_and_one_without_ends_it(bench: Bench) -> None:
    async def scenario(daemon: Daemon) -> None:
        opened = daemon.open()
        await opened.hand_off()
        await daemon.tier.apply(replace(ALLOWED), 4)
        opened.talk()
        await daemon.tier.apply(NOTHING, 5)
        ((reason, *_),) = await daemon.ends()
        assert reason is Reason.POLICY_CHANGED
        assert await daemon.flows() == []
        opened.close()

    bench.run(scenario)


def test_refusals_leave_both_sockets_as_they_were(bench: Bench) -> None:
    async def scenario(daemon: Daemon) -> None:
        opened = daemon.open()
        opened.client.send(b"!", socket.MSG_OOB)
        sockets = daemon.handoff.sockets

        def urgent() -> bool:
            state = sockets.ask(opened.near)
            return state is not None and Blocker.URGENT in state.blockers

        wait_for(urgent, "urgent data")
        assert opened.attempt() is HandoffRefusal.URGENT
        opened.near.setblocking(True)
        assert opened.near.recv(1, socket.MSG_OOB) == b"!"
        opened.close()

        opened = daemon.open()
        with socket.socket(opened.near.family, socket.SOCK_STREAM) as loose:
            facts = TunnelFacts(1, 1, 1, 1)
            assert daemon.handoff.attempt(loose, opened.upstream, facts) is HandoffRefusal.CLOSED
        assert isinstance(opened.attempt(), Draining)
        assert opened.attempt() is HandoffRefusal.TAKEN
        opened.close()

    bench.run(scenario)


def test_a_port_that_others_may_get_is_refused(bench: Bench) -> None:
    async def scenario(daemon: Daemon) -> None:
        opened = daemon.open()
        opened.upstream.close()
        family = opened.near.family
        with bench.rig.server.socket(family, socket.SOCK_STREAM) as serving:
            serving.bind((bench.server, SERVER_PORT + 1))
            serving.listen()
            with socket.create_connection((bench.server, SERVER_PORT + 1)) as opened.upstream:
                assert opened.attempt() is HandoffRefusal.SOURCE_PORT
        opened.close()

    bench.run(scenario)


def test_a_local_client_is_refused(bench: Bench) -> None:
    async def scenario(daemon: Daemon) -> None:
        opened = daemon.open()
        with (
            socket.create_server((bench.listen, PORT + 10), family=opened.near.family) as listener,
            socket.create_connection((bench.listen, PORT + 10)),
        ):
            opened.near.close()
            opened.near, _ = listener.accept()
            assert opened.attempt() is HandoffRefusal.NOT_ATTACHED
        opened.close()

    bench.run(scenario)
