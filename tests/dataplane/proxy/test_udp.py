"""Datagrams to and fro: each to the right backend, each answered from the address that was asked."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest

from marchproxy.dataplane.proxy.udp import UdpLimits
from marchproxy.model.entities import Balance
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from tests.dataplane.loops import PATIENCE, looped, until
from tests.dataplane.plans import backend, listener, plan, rule
from tests.dataplane.proxy.peers import appliance, free_port
from tests.quicheads import long_header, short_header

ANSWER_WITHIN = PATIENCE


class UdpServer:
    """Answers each datagram with a function of it. A bare socket: transports swallow empty ones."""

    def __init__(self, sock: socket.socket, answer: Callable[[bytes], bytes]) -> None:
        self.heard: list[bytes] = []
        self._socket = sock
        self._answer = answer

    def readable(self) -> None:
        data, address = self._socket.recvfrom(65536)
        self.heard.append(data)
        self._socket.sendto(self._answer(data), address)


@asynccontextmanager
async def udp_server(answer: Callable[[bytes], bytes] = bytes) -> AsyncGenerator[tuple[int, UdpServer]]:
    """Yields port and server."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        server = UdpServer(sock, answer)
        loop.add_reader(sock, server.readable)
        try:
            yield sock.getsockname()[1], server
        finally:
            loop.remove_reader(sock)


@asynccontextmanager
async def client(source: str = "127.0.0.1", family: int = socket.AF_INET) -> AsyncGenerator[socket.socket]:
    """An unconnected socket: it hears answers from wherever they come."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind((source, 0))
        yield sock


async def exchange(sock: socket.socket, port: int, data: bytes, to: str = "127.0.0.1") -> tuple[bytes, str]:
    """Send one datagram; the answer, and the address it came from."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(sock, lambda: None if readable.done() else readable.set_result(None))
    try:
        sock.sendto(data, (to, port))
        async with asyncio.timeout(ANSWER_WITHIN):
            await readable
    finally:
        loop.remove_reader(sock)
    answer, address = sock.recvfrom(65536)
    return answer, address[0]


@looped
async def test_question_and_answer_are_one_flow() -> None:
    port = free_port(socket.SOCK_DGRAM)
    async with (
        udp_server(bytes.upper) as (server, heard),
        client() as sock,
        appliance(plan(listener(port, rule(backend(server)), transport=Transport.UDP))) as running,
    ):
        assert await exchange(sock, port, b"one") == (b"ONE", "127.0.0.1")
        assert await exchange(sock, port, b"") == (b"", "127.0.0.1")
        assert await exchange(sock, port, b"x" * 60_000) == (b"X" * 60_000, "127.0.0.1")
        assert len(heard.heard) == 3
        (flow,) = await running.tier.flows(10)
        assert flow.decision.protocol == "udp"
        assert (flow.sent.packets, flow.sent.bytes) == (3, 60_003)
        assert (flow.received.packets, flow.received.bytes) == (3, 60_003)
        assert running.reasons() == [("flow-start", "FORWARDED")]


@pytest.mark.parametrize(
    ("wildcard", "asked", "family"),
    [
        ("0.0.0.0", "127.0.0.2", socket.AF_INET),
        ("0.0.0.0", "127.0.0.1", socket.AF_INET),
        ("::", "::1", socket.AF_INET6),
    ],
)
@looped
async def test_a_wildcard_listener_answers_from_the_address_that_was_asked(
    wildcard: str, asked: str, family: int
) -> None:
    port = free_port(socket.SOCK_DGRAM)
    source = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    async with udp_server() as (server, _), client(source, family) as sock:
        listening = listener(port, rule(backend(server)), address=wildcard, transport=Transport.UDP)
        async with appliance(plan(listening)) as running:
            assert await exchange(sock, port, b"who", asked) == (b"who", asked)
            assert str(running.events[0].decision.destination) == asked


@looped
async def test_quic_is_kept_to_its_backend_by_connection_id() -> None:
    def calls(chosen: bytes) -> Callable[[bytes], bytes]:
        return lambda data: long_header(b"client", chosen)

    port = free_port(socket.SOCK_DGRAM)
    async with (
        udp_server(calls(b"first ID")) as (one, heard),
        udp_server(calls(b"other ID")) as (two, also),
    ):
        turns = replace(rule(backend(one), backend(two)), quic=True, balance=Balance.ROUND_ROBIN)
        by_id = {b"first ID": heard, b"other ID": also}
        for made in (turns, replace(turns, quic=False)):
            kept = 0
            # Who comes from a port that has just been given back would be the client before.
            async with (
                AsyncExitStack() as clients,
                appliance(plan(listener(port, made, transport=Transport.UDP))) as running,
            ):
                for _ in range(2):
                    sock = await clients.enter_async_context(client())
                    answer, _ = await exchange(sock, port, long_header(b"made-up!", b"client"))
                    chosen = answer[13:21]
                    for _ in range(3):
                        before = len(by_id[chosen].heard)
                        sock = await clients.enter_async_context(client())
                        await exchange(sock, port, short_header(chosen))
                        kept += len(by_id[chosen].heard) - before
                if made.quic:
                    # A backend that policy has no more is nobody's home.
                    gone, stays = (one, also) if chosen == b"first ID" else (two, heard)
                    left = replace(turns, pool=rule(backend(one + two - gone)).pool)
                    await running.tier.apply(plan(listener(port, left, transport=Transport.UDP)), 2)
                    before = len(stays.heard)
                    async with client() as sock:
                        await exchange(sock, port, short_header(chosen))
                    assert len(stays.heard) == before + 1
            assert (kept == 6) is made.quic


@looped
async def test_each_client_has_its_own_session() -> None:
    port = free_port(socket.SOCK_DGRAM)
    async with (
        udp_server() as (server, _),
        client() as one,
        client() as other,
        appliance(plan(listener(port, rule(backend(server)), transport=Transport.UDP))) as running,
    ):
        assert (await exchange(one, port, b"1"))[0] == b"1"
        assert (await exchange(other, port, b"2"))[0] == b"2"
        assert (await exchange(one, port, b"3"))[0] == b"3"
        assert len(await running.tier.flows(10)) == 2


@looped
async def test_a_denied_datagram_is_dropped_and_counted() -> None:
    port = free_port(socket.SOCK_DGRAM)
    async with udp_server() as (server, heard), client() as stranger, client("127.0.0.2") as friend:
        listening = listener(port, rule(backend(server), sources=("friend",)), transport=Transport.UDP)
        async with appliance(plan(listening, sources={"friend": "127.0.0.2/32"})) as running:
            stranger.sendto(b"secret", ("127.0.0.1", port))
            assert (await exchange(friend, port, b"hello"))[0] == b"hello"
            assert heard.heard == [b"hello"]
            assert running.reasons() == [("denied", "NO_MAPPING"), ("flow-start", "FORWARDED")]
            counted = running.tier.counters()[Reason.NO_MAPPING]
            assert (counted.packets, counted.bytes) == (1, 6)


@looped
async def test_a_closed_backend_port_turns_the_session_to_the_next() -> None:
    port = free_port(socket.SOCK_DGRAM)
    dead = free_port(socket.SOCK_DGRAM)
    async with udp_server() as (server, _):
        listening = listener(port, rule(backend(dead), backend(server)), transport=Transport.UDP)
        async with appliance(plan(listening)) as running:

            def admitted(count: int) -> bool:
                return len(running.tier._udp.live) == count

            def turned() -> bool:
                held = [session.conversation.backend for session in running.tier._udp.live.values()]
                return all(chosen is not None and chosen.port == server for chosen in held)

            number = 0
            # Where a session goes is chance: go on until one met the closed port.
            while number < 64 and not running.packets(Reason.UPSTREAM_REFUSED):
                async with client() as sock:
                    # This one may be lost to the closed port: the ICMP error about it is what tells.
                    sock.sendto(b"knock", ("127.0.0.1", port))
                    await until(partial(admitted, number + 1))
                    await until(turned)
                    assert (await exchange(sock, port, b"come in"))[0] in (b"knock", b"come in")
                number += 1
            assert running.packets(Reason.UPSTREAM_REFUSED) > 0


@looped
async def test_without_a_living_backend_the_session_ends_refused() -> None:
    port = free_port(socket.SOCK_DGRAM)
    listening = listener(port, rule(backend(free_port(socket.SOCK_DGRAM))), transport=Transport.UDP)
    async with client() as sock, appliance(plan(listening)) as running:
        sock.sendto(b"knock", ("127.0.0.1", port))
        await until(lambda: running.reasons()[-1:] == [("flow-end", "UPSTREAM_REFUSED")])
        assert running.packets(Reason.UPSTREAM_REFUSED) == 1
        assert not running.tier._udp.live


@looped
async def test_beyond_the_limit_datagrams_of_new_clients_are_dropped() -> None:
    port = free_port(socket.SOCK_DGRAM)
    async with udp_server() as (server, _), client() as first, client() as second:
        listening = listener(port, rule(backend(server)), transport=Transport.UDP)
        async with appliance(plan(listening), udp=UdpLimits(sessions=1)) as running:
            assert (await exchange(first, port, b"1"))[0] == b"1"
            second.sendto(b"2", ("127.0.0.1", port))
            await until(lambda: running.packets(Reason.FLOW_TABLE_FULL) == 1)
            assert (await exchange(first, port, b"3"))[0] == b"3"
            assert running.tier.fill()[1].used == 1


@looped
async def test_silence_ends_a_session() -> None:
    port = free_port(socket.SOCK_DGRAM)
    async with udp_server() as (server, _), client() as sock:
        listening = listener(port, rule(backend(server)), transport=Transport.UDP)
        async with appliance(plan(listening), udp=UdpLimits(sessions=9, idle=0.0)) as running:
            assert (await exchange(sock, port, b"1"))[0] == b"1"
            await running.tier.poll()
            assert running.reasons() == [("flow-start", "FORWARDED"), ("flow-end", "IDLE")]
            assert (await exchange(sock, port, b"2"))[0] == b"2"


@looped
async def test_a_session_that_policy_no_longer_allows_ends() -> None:
    port = free_port(socket.SOCK_DGRAM)
    async with udp_server() as (server, heard), client() as sock:
        allowed = listener(port, rule(backend(server)), transport=Transport.UDP)
        denied = listener(port, rule(reason=Reason.DENY_MAPPING), transport=Transport.UDP)
        async with appliance(plan(allowed)) as running:
            assert (await exchange(sock, port, b"1"))[0] == b"1"
            await running.tier.apply(plan(denied), 2)
            assert running.reasons()[-1] == ("flow-end", "POLICY_CHANGED")
            sock.sendto(b"2", ("127.0.0.1", port))
            await until(lambda: running.packets(Reason.DENY_MAPPING) == 1)
            assert heard.heard == [b"1"]


@looped
async def test_a_session_outlives_its_listener_becoming_a_wildcard_and_back() -> None:
    port = free_port(socket.SOCK_DGRAM)
    async with udp_server() as (server, _), client() as sock:
        exact = listener(port, rule(backend(server)), transport=Transport.UDP)
        wildcard = listener(port, rule(backend(server)), transport=Transport.UDP, address="0.0.0.0")
        async with appliance(plan(exact)) as running:
            for number, listening in enumerate((exact, wildcard, exact)):
                await running.tier.apply(plan(listening), number)
                assert await exchange(sock, port, b"%d" % number) == (b"%d" % number, "127.0.0.1")
            assert running.reasons() == [("flow-start", "FORWARDED")]


@looped
async def test_an_id_of_quic_is_kept_once_its_client_has_named_it() -> None:
    port = free_port(socket.SOCK_DGRAM)
    async with udp_server(lambda _: long_header(b"client", b"8 bytes!")) as (server, _), client() as sock:
        made = replace(rule(backend(server)), quic=True)
        async with appliance(plan(listener(port, made, transport=Transport.UDP))) as running:
            homes = running.tier._udp.homes
            for said, named in (
                (long_header(b"made-up!", b"client"), 0),
                (short_header(b"8 bytes!"), 0),
                (long_header(b"8 bytes!", b"client"), 1),
            ):
                await exchange(sock, port, said)
                assert len(homes._homes) == named
