"""Plans as open sockets: all of them or none, and in the right hands."""

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import cast

import pytest

from marchproxy.dataplane.admission.handover import Handover
from marchproxy.dataplane.admission.limits import AdmissionLimits
from marchproxy.dataplane.fdstore import DescriptorStore
from marchproxy.dataplane.kernel.tunnels import Tunnel as Remembered
from marchproxy.dataplane.notify import Notifier
from marchproxy.dataplane.records import EventKind, Flow
from marchproxy.model.appliance import Settings
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.entities import Auth, Mapping, Service
from marchproxy.model.errors import Conflict
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Plan
from tests.dataplane import facts
from tests.dataplane.admission.desk import Desk, blocking, desk, explicit
from tests.dataplane.loops import PATIENCE, looped, until
from tests.dataplane.proxy.peers import ask, dial, echo, free_port, tcp_server
from tests.policy.build import mapping, service

LAN = service("lan", "127.0.0.1")
WEB = service("web", "127.0.0.2")
VAULT = service("vault", "127.0.0.3", auth="token")
OUT = mapping("out", "lan", "web")


async def tunnel(at: Desk, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(f"CONNECT 127.0.0.2:{port} HTTP/1.1\r\nHost: 127.0.0.2:{port}\r\n\r\n".encode())
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@looped
async def test_a_port_in_use_changes_nothing() -> None:
    async with desk(LAN, WEB, OUT) as at:
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken, free = other.getsockname()[1], free_port()
            here = ip_address("127.0.0.1")
            wanted = replace(explicit(at.port, LAN), explicit=(Endpoint(here, free), Endpoint(here, taken)))
            with pytest.raises(Conflict):
                at.apply(wanted)
        assert not listens(free)
        async with tcp_server(echo, "127.0.0.2") as port, dial(at.port) as streams:
            await tunnel(at, port, *streams)


@looped
async def test_what_a_tier_refuses_is_let_go() -> None:
    async with desk() as at:
        port = free_port()
        prepared = at.admission.prepare(explicit(port))
        assert listens(port)
        prepared.abandon()
        assert not listens(port)
        assert listens(at.port)


@looped
async def test_listeners_go_and_their_tunnels_stay() -> None:
    async with desk(LAN, WEB, OUT) as at, tcp_server(echo, "127.0.0.2") as port, dial(at.port) as streams:
        await tunnel(at, port, *streams)
        at.apply(explicit(free_port(), LAN, WEB, OUT))
        assert not listens(at.port)
        streams[1].write(b"hello")
        assert await streams[0].readexactly(5) == b"hello"


@looped
async def test_facts_about_tunnels() -> None:
    async with desk(LAN, WEB, OUT) as at, tcp_server(echo, "127.0.0.2") as port, dial(at.port) as streams:
        await tunnel(at, port, *streams)
        streams[1].write(b"hello")
        await streams[0].readexactly(5)
        (flow,) = await at.admission.flows(10)
        assert (flow.sent.bytes, flow.received.bytes) == (5, 5)
        assert at.admission.counters()[Reason.FORWARDED].bytes == 10
        far, nobody = ip_address("127.0.0.2"), ip_address("127.0.0.7")
        assert await at.admission.in_use(frozenset({far, nobody})) == {far}
        assert [(each.name, each.used) for each in at.admission.fill()] == [
            ("tunnels", 1),
            ("associations", 0),
        ]
        assert await at.admission.cut(frozenset({1, flow.decision.id})) == {flow.decision.id}
        with pytest.raises(ConnectionResetError):
            await streams[0].readexactly(1)
        assert at.reasons()[-1] == ("flow-end", "CUT")
        assert at.admission.fill()[0].used == 0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [(Settings(tunnel_idle=1), "IDLE"), (Settings(tunnel_lifetime=1), "LIFETIME")],
)
@looped
async def test_silence_and_age_end_tunnels(settings: Settings, reason: str) -> None:
    async with desk(LAN, WEB, OUT) as at, tcp_server(echo, "127.0.0.2") as port, dial(at.port) as streams:
        await tunnel(at, port, *streams)
        made = explicit(at.port, LAN, WEB, OUT)
        at.apply(replace(made, settings=settings))
        (each,) = at.admission._tunnels.live
        each.conversation.began -= 60
        each.conversation.last_seen -= 60
        at.admission.poll()
        assert at.reasons()[-1] == ("flow-end", reason)


@looped
async def test_nobody_looks_at_what_is_not_wanted() -> None:
    async with desk(LAN, WEB, OUT) as at, tcp_server(echo, "127.0.0.2") as port, dial(at.port) as streams:
        at.admission.want(frozenset({EventKind.FLOW_END}))
        await tunnel(at, port, *streams)
        assert at.events == []


@looped
async def test_a_crowd_of_one_source_is_held_off() -> None:
    limits = AdmissionLimits(connections=8, per_source=2)
    async with desk(LAN, WEB, OUT, limits=limits) as at, dial(at.port), dial(at.port):
        await until(lambda: at.admission._gate.inside == 2)
        with pytest.raises(ConnectionResetError):
            await ask(at.port)
        assert at.reasons() == [("denied", "FLOW_TABLE_FULL")]
    await until(lambda: at.admission._gate.inside == 0)


@looped
async def test_it_drains_before_it_ends() -> None:
    async with desk(LAN, WEB, OUT) as at, tcp_server(echo, "127.0.0.2") as port, dial(at.port) as streams:
        await tunnel(at, port, *streams)
        draining = asyncio.create_task(at.admission.drain(PATIENCE))
        await until(lambda: not listens(at.port))
        streams[1].write(b"last")
        streams[1].write_eof()
        assert await streams[0].read() == b"last"
        await draining


@looped
async def test_who_has_not_asked_yet_is_served_while_it_drains() -> None:
    """One that was accepted before, and one that waits to be."""
    async with desk(LAN, WEB, OUT) as at, tcp_server(echo, "127.0.0.2") as port, dial(at.port) as accepted:
        await until(lambda: at.admission._gate.inside == 1)
        with socket.create_connection(("127.0.0.1", at.port)) as late:
            draining = asyncio.create_task(at.admission.drain(PATIENCE))
            await until(lambda: at.admission._gate.inside == 2)
            for streams in (accepted, await asyncio.open_connection(sock=late)):
                await tunnel(at, port, *streams)
                streams[1].write(b"last")
                streams[1].write_eof()
                assert await streams[0].read() == b"last"
                streams[1].close()
        await draining


@looped
async def test_who_waits_where_the_next_daemon_accepts_is_left_to_it() -> None:
    store = DescriptorStore.adopt(Notifier(), {"FDSTORE": "1"})
    async with desk(LAN, WEB, OUT, store=store) as at:
        (sock,) = at.admission._sockets.held.values()
        with sock.dup() as kept, socket.create_connection(("127.0.0.1", at.port)) as waiting:
            await at.admission.drain(PATIENCE)
            client, _ = kept.accept()
            assert client.getpeername() == waiting.getsockname()
            client.close()


@looped
async def test_an_address_that_is_not_here_is_a_problem() -> None:
    async with desk() as at:
        away = Plan(explicit=(Endpoint(ip_address("198.51.100.9"), at.port),))
        at.apply(away)
        assert at.admission.problems() == ["listen address 198.51.100.9 is on no interface of this host"]


class Kernel:
    """Holds one tunnel, and is asked whether it may go on."""

    def __init__(self, flow: Flow, held: Remembered) -> None:
        self.flow, self.held = flow, held
        self.reasons: list[Reason | None] = []

    def end_where(self, judge: Callable[[Flow, Remembered], Reason | None]) -> None:
        self.reasons.append(judge(self.flow, self.held))


@pytest.mark.parametrize(
    ("entities", "settings", "reason"),
    [
        ((LAN, VAULT, mapping("m", "lan", "vault")), Settings(), None),
        ((LAN, VAULT, mapping("m", "lan", "vault", on_expiry="cut")), Settings(), Reason.AUTH_EXPIRED),
        ((LAN, VAULT, mapping("m", "lan", "vault", on_expiry="grace:86400")), Settings(), None),
        ((LAN, VAULT, mapping("m", "lan", "vault")), Settings(tunnel_lifetime=60), Reason.LIFETIME),
        ((LAN, VAULT), Settings(), Reason.POLICY_CHANGED),
        ((LAN, replace(VAULT, auth=Auth.NONE), mapping("m", "lan", "vault")), Settings(), None),
    ],
)
@looped
async def test_tunnels_in_the_kernel_are_held_to_the_plan_too(
    entities: tuple[Service | Mapping, ...], settings: Settings, reason: Reason | None
) -> None:
    """One that went to 127.0.0.3 by the explicit proxy, an hour ago, with a credential of the vault."""
    async with desk() as at:
        now = time.time()
        decision = facts.decision(
            "127.0.0.1", destination=ip_address("127.0.0.1"), destination_port=at.port, mapping="m"
        )
        flow = replace(
            facts.flow(decision), backend=ip_address("127.0.0.3"), backend_port=443, started=now - 3600
        )
        kernel = Kernel(flow, Remembered("vault", "1", "", int(now) - 10))
        at.admission._handover = cast("Handover", kernel)
        try:
            at.apply(explicit(at.port, *entities, settings=settings))
            at.admission._expired_at = 0.0
            at.admission.poll()
            assert next(filter(None, kernel.reasons), None) is reason
        finally:
            at.admission._handover = None


@pytest.mark.parametrize(
    ("asked_for", "name", "blocked", "reason"),
    [
        ("proxy", "www.shop.test", "www.shop.test", Reason.BLOCKED_DESTINATION),
        ("backend", "www.shop.test", "www.shop.test", Reason.BLOCKED_DESTINATION),
        ("proxy", "www.shop.test", "www.other.test", None),
        ("backend", "www.shop.test", "www.other.test", None),
    ],
)
@looped
async def test_names_that_tls_told_are_asked_about_in_the_kernel_too(
    asked_for: str, name: str, blocked: str, reason: Reason | None
) -> None:
    """Also where an address was asked for that no name would lead to."""
    async with desk() as at:
        backend = ip_address("10.9.9.9")
        where = (backend, 443) if asked_for == "backend" else (ip_address("127.0.0.1"), at.port)
        decision = facts.decision("127.0.0.1", destination=where[0], destination_port=where[1], mapping="m")
        flow = replace(facts.flow(decision), backend=backend, backend_port=443)
        kernel = Kernel(flow, Remembered("", "", name, 0))
        at.admission._handover = cast("Handover", kernel)
        try:
            at.apply(blocking(explicit(at.port, LAN, mapping("m", "lan", "all")), blocked))
            assert kernel.reasons == [reason]
        finally:
            at.admission._handover = None
