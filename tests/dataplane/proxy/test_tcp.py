"""Who is let in over TCP, to which backend, and what becomes of the rest."""

import asyncio
import errno
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from marchproxy.dataplane.proxy.ledger import Ledger
from marchproxy.dataplane.proxy.tcp import TcpCarrier, TcpLimits, TcpListener
from marchproxy.dataplane.records import FlowState
from marchproxy.model.address import IPAddress
from marchproxy.model.reason import Reason, Verdict
from tests.dataplane.loops import looped, until
from tests.dataplane.plans import backend, listener, plan, rule
from tests.dataplane.proxy.peers import appliance, ask, dial, echo, free_port, says, tcp_server
from tests.policy.blocking import blocks


@asynccontextmanager
async def silent_backend() -> AsyncGenerator[int]:
    """A port whose listener's queue is full: connections to it are never answered."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        clients = [socket.socket() for _ in range(4)]
        try:
            for client in clients:
                client.setblocking(False)
                client.connect_ex(full.getsockname())
            yield full.getsockname()[1]
        finally:
            for client in clients:
                client.close()


@looped
async def test_an_allowed_client_reaches_the_backend_and_the_record_says_so() -> None:
    port = free_port()
    sources = {"clients": "127.0.0.0/8"}
    async with tcp_server(echo) as server:
        served = plan(listener(port, rule(backend(server), sources=("clients",))), sources=sources)
        async with appliance(served) as running, dial(port) as (reader, writer):
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            (flow,) = await running.tier.flows(10)
            client = writer.get_extra_info("sockname")
            decision = flow.decision
            assert (str(decision.source), decision.source_port) == client
            assert (str(decision.destination), decision.destination_port) == ("127.0.0.1", port)
            assert (decision.verdict, decision.reason) == (Verdict.ALLOW, Reason.FORWARDED)
            assert (decision.mapping, decision.revision) == ("m", 1)
            assert decision.source_service == "clients"
            assert decision.destination_service == "web"
            assert (str(flow.backend), flow.backend_port) == ("127.0.0.1", server)
            assert flow.state is FlowState.ESTABLISHED
            assert (flow.sent.bytes, flow.received.bytes) == (5, 5)
            assert running.reasons() == [("flow-start", "FORWARDED")]


@looped
async def test_a_denied_source_is_reset_before_any_backend_hears_of_it() -> None:
    port = free_port()
    heard = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set()

    async with tcp_server(serve) as server:
        served = plan(
            listener(port, rule(backend(server), sources=("friend",))),
            sources={"friend": "127.0.0.2/32"},
        )
        async with appliance(served) as running:
            with pytest.raises(ConnectionResetError):
                await ask(port, source="127.0.0.1")
            assert running.reasons() == [("denied", "NO_MAPPING")]
            assert running.events[0].decision.verdict is Verdict.DENY
            assert running.packets(Reason.NO_MAPPING) == 1
            assert not heard.is_set()
            await ask(port, source="127.0.0.2")
            assert heard.is_set()


@pytest.mark.parametrize("reason", [Reason.DENY_MAPPING, Reason.NO_BACKEND, Reason.AUTH_MISSING])
@looped
async def test_a_refusing_rule_is_counted_under_its_own_reason(reason: Reason) -> None:
    port = free_port()
    async with appliance(plan(listener(port, rule(reason=reason)))) as running:
        with pytest.raises(ConnectionResetError):
            await ask(port)
        assert running.reasons() == [("denied", reason.name)]
        assert running.packets(reason) == 1
        assert running.events[0].decision.mapping == "m"


@looped
async def test_a_dead_backend_is_passed_over() -> None:
    port = free_port()
    async with tcp_server(says(b"alive")) as server:
        served = plan(listener(port, rule(backend(free_port()), backend(free_port()), backend(server))))
        async with appliance(served) as running:
            answers = await asyncio.gather(*(ask(port) for _ in range(20)))
            assert set(answers) == {b"alive"}
            assert {event.flow.backend_port for event in running.events if event.flow} == {server}


@looped
async def test_a_silent_backend_costs_its_time_and_no_more() -> None:
    port = free_port()
    limits = TcpLimits(connections=10, connect=1.5)
    async with silent_backend() as silent, tcp_server(says(b"alive")) as server:
        served = plan(listener(port, rule(backend(silent), backend(server))))
        async with appliance(served, tcp=limits):
            answers = await asyncio.gather(*(ask(port) for _ in range(8)))
            assert set(answers) == {b"alive"}


@looped
async def test_when_no_backend_answers_the_client_is_reset_and_told_why() -> None:
    port, silent_port = free_port(), free_port()
    limits = TcpLimits(connections=10, connect=1.0)
    async with silent_backend() as silent:
        served = plan(
            listener(port, rule(backend(free_port()), backend(free_port()))),
            listener(silent_port, rule(backend(silent))),
        )
        async with appliance(served, tcp=limits) as running:
            with pytest.raises(ConnectionResetError):
                await ask(port)
            with pytest.raises(ConnectionResetError):
                await ask(silent_port)
            assert running.reasons() == [("denied", "UPSTREAM_REFUSED"), ("denied", "UPSTREAM_TIMEOUT")]
            assert not running.tier._tcp.live


@looped
async def test_the_search_for_a_backend_ends_at_its_deadline() -> None:
    port = free_port()
    limits = TcpLimits(connections=10, connect=5.0, admission=0.05)
    async with silent_backend() as silent, silent_backend() as twin:
        served = plan(listener(port, rule(backend(silent), backend(twin))))
        async with appliance(served, tcp=limits) as running:
            with pytest.raises(ConnectionResetError):
                await ask(port)
            assert running.reasons() == [("denied", "UPSTREAM_TIMEOUT")]


@looped
async def test_beyond_the_limit_connections_are_refused_and_old_ones_live() -> None:
    port = free_port()
    async with tcp_server(echo) as server:
        served = plan(listener(port, rule(backend(server))))
        async with appliance(served, tcp=TcpLimits(connections=1)) as running:
            async with dial(port) as (reader, writer):
                writer.write(b"a")
                assert await reader.readexactly(1) == b"a"
                with pytest.raises(ConnectionResetError):
                    await ask(port)
                assert running.packets(Reason.FLOW_TABLE_FULL) == 1
                writer.write(b"b")
                assert await reader.readexactly(1) == b"b"
            await until(lambda: not running.tier._tcp.live)
            async with dial(port) as (reader, writer):
                writer.write(b"c")
                assert await reader.readexactly(1) == b"c"


@looped
async def test_a_silent_connection_ends_as_idle() -> None:
    port = free_port()
    async with tcp_server(echo) as server:
        served = plan(listener(port, rule(backend(server))))
        async with (
            appliance(served, tcp=TcpLimits(connections=9, idle=0.0)) as running,
            dial(port) as (reader, _),
        ):
            await until(lambda: ("flow-start", "FORWARDED") in running.reasons())
            await running.tier.poll()
            with pytest.raises(ConnectionResetError):
                await reader.read()
            assert running.reasons()[-1] == ("flow-end", "IDLE")


@looped
async def test_ipv6_clients_reach_ipv4_backends() -> None:
    port = free_port()
    async with tcp_server(says(b"four")) as server:
        served = plan(listener(port, rule(backend(server)), address="::1"))
        async with appliance(served) as running, dial(port, "::1") as (reader, _):
            assert await reader.read() == b"four"
            assert running.events[0].decision.source == ip_address("::1")


class Exhausted(socket.socket):
    """A listening socket whose process has run out of descriptors, for the first two calls."""

    failures = 2

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@looped
async def test_out_of_descriptors_pauses_accepting_and_says_so() -> None:
    async with tcp_server(says(b"later")) as server:
        ledger = Ledger()
        listening = Exhausted()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        port = listening.getsockname()[1]
        ledger.adopt(plan(listener(port, rule(backend(server)))), 1)
        carrier = TcpCarrier(ledger, TcpLimits(connections=10))
        accepting = TcpListener(listening, carrier)
        accepting.start()
        answer = asyncio.ensure_future(ask(port))
        await until(lambda: accepting.overloaded == "Too many open files")
        assert await answer == b"later"
        assert accepting.overloaded == ""
        accepting.close()
        await carrier.close()


class Holding:
    """A carrier that only holds what it is given."""

    def __init__(self) -> None:
        self.held: list[socket.socket] = []

    def admit(self, client: socket.socket, peer: IPAddress, peer_port: int) -> None:
        self.held.append(client)


@looped
async def test_processes_that_share_a_listener_share_a_burst_of_connections() -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    listening.setblocking(False)
    carriers = Holding(), Holding()
    sharing = [TcpListener(listening.dup(), carrier, sharers=2) for carrier in carriers]
    clients = [socket.create_connection(listening.getsockname()) for _ in range(32)]
    for each in sharing:
        each.start()
    await until(lambda: sum(len(carrier.held) for carrier in carriers) == 32)
    assert min(len(carrier.held) for carrier in carriers) >= 8
    clients += [socket.create_connection(listening.getsockname()) for _ in range(32)]
    sharing[0].close()
    assert sum(len(carrier.held) for carrier in carriers) == 64  # nobody is left to be reset
    sharing[1].close()
    for sock in (listening, *clients, *carriers[0].held, *carriers[1].held):
        sock.close()


@looped
async def test_who_has_no_room_leaves_connections_to_who_has() -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    listening.setblocking(False)
    full, free = Holding(), Holding()
    sharing = [
        TcpListener(listening.dup(), full, sharers=2, room=lambda: 3 - len(full.held)),
        TcpListener(listening.dup(), free, sharers=2, room=lambda: 40 - len(free.held)),
    ]
    clients = [socket.create_connection(listening.getsockname()) for _ in range(32)]
    sharing[0].start()
    await until(lambda: len(full.held) == 3)
    sharing[1].start()
    await until(lambda: len(full.held) + len(free.held) == 32)
    assert len(free.held) >= 24
    for each in sharing:
        each.close()
    for sock in (listening, *clients, *full.held, *free.held):
        sock.close()


@looped
async def test_where_nobody_has_room_all_that_wait_are_taken_to_be_refused() -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    listening.setblocking(False)
    carriers = Holding(), Holding()
    sharing = [TcpListener(listening.dup(), each, sharers=2, room=lambda: 0) for each in carriers]
    clients = [socket.create_connection(listening.getsockname()) for _ in range(150)]
    for each in sharing:
        each.start()
    await until(lambda: sum(len(carrier.held) for carrier in carriers) == 150)
    for each in sharing:
        each.close()
    for sock in (listening, *clients, *carriers[0].held, *carriers[1].held):
        sock.close()


@looped
async def test_a_connection_that_searches_when_policy_changes_is_refused() -> None:
    port = free_port()
    async with silent_backend() as silent:
        allowed = plan(listener(port, rule(backend(silent))))
        denied = plan(listener(port, rule(reason=Reason.DENY_MAPPING)))
        async with appliance(allowed) as running:
            answer = asyncio.ensure_future(ask(port))
            await until(lambda: len(running.tier._tcp.live) == 1)
            (flow,) = await running.tier.flows(1)
            assert flow.state is FlowState.OPENING
            await running.tier.apply(denied, 2)
            with pytest.raises(ConnectionResetError):
                await answer
            assert running.reasons() == [("denied", "POLICY_CHANGED")]


@looped
async def test_a_blocked_source_is_refused_whatever_rules_say() -> None:
    port = free_port()
    async with tcp_server(says(b"alive")) as server:
        served = replace(plan(listener(port, rule(backend(server)))), blocks=blocks("127.0.0.2"))
        async with appliance(served) as running:
            with pytest.raises(ConnectionResetError):
                await ask(port, source="127.0.0.2")
            assert running.reasons() == [("denied", "BLOCKED_SOURCE")]
            assert running.events[0].decision.mapping == "block:127.0.0.2"
            assert await ask(port, source="127.0.0.3") == b"alive"


@looped
async def test_a_blocked_backend_is_passed_over_and_its_connections_end() -> None:
    port = free_port()
    async with tcp_server(echo) as server, tcp_server(echo, "127.0.0.9"):
        served = plan(listener(port, rule(backend(server))))
        async with appliance(served) as running, dial(port) as (reader, writer):
            writer.write(b"x")
            assert await reader.read(1) == b"x"
            await running.tier.apply(replace(served, blocks=blocks(list=["127.0.0.1"])), 2)
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
            assert running.reasons()[-1] == ("flow-end", "BLOCKED_SOURCE")
        blocked = replace(
            plan(listener(port, rule(backend(server, "127.0.0.9")))), blocks=blocks("127.0.0.9")
        )
        async with appliance(blocked) as running:
            with pytest.raises(ConnectionResetError):
                await ask(port)
            assert running.reasons() == [("denied", "BLOCKED_DESTINATION")]
