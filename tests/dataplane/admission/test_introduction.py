"""Who a client is by the PROXY protocol: told by a proxy before us, told on to backends."""

import asyncio
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from marchproxy.dataplane.proxy.protocol.proxyprotocol import Ends, build_v1, build_v2
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Plan
from tests.dataplane.admission.desk import TOKEN, Desk, blocking, desk, explicit
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import dial, echo, tcp_server
from tests.policy import build
from tests.policy.build import mapping, service

FAR = service("far", "10.9.0.0/16", "2001:db8::/32")
CLIENT = Ends(ip_address("10.9.8.7"), 50_000, ip_address("192.0.2.1"), 443)
CLIENT6 = Ends(ip_address("2001:db8::7"), 50_000, ip_address("2001:db8:1::1"), 443)
BALANCER = "127.0.0.1/32"


def listening(at: Desk, backend: int, sources: str = "far", auth: str = "none", **fields: Any) -> Plan:
    """A plan with a listener in the place of the explicit proxy."""
    echoes = service("vault", "127.0.0.3", port=backend, auth=auth)
    near = service("near", "127.0.0.0/8")
    return build.plan(FAR, near, echoes, mapping("m", sources, "vault", f"127.0.0.1:{at.port}", **fields))


@pytest.mark.parametrize("ends", [CLIENT, CLIENT6])
@pytest.mark.parametrize("header", [build_v1, build_v2])
@pytest.mark.parametrize("piece", [1, 1000])
@looped
async def test_the_client_is_who_the_balancer_says(ends: Ends, header: Any, piece: int) -> None:
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        at.apply(listening(at, port, proxy_from=[BALANCER]))
        async with dial(at.port) as (reader, writer):
            said = header(ends) + b"hello"
            for start in range(0, len(said), piece):
                writer.write(said[start : start + piece])
                await writer.drain()
                await asyncio.sleep(0)
            assert await reader.readexactly(5) == b"hello"
            (tunnel,) = at.admission._tunnels.live
            assert (tunnel.conversation.query.source, tunnel.conversation.source_port) == (
                ends.source,
                50_000,
            )
            assert tunnel.stays, "the kernel knows the balancer only"
            assert at.admission._gate.inside == 1
        await until(lambda: at.admission._gate.inside == 0, "the gate to be left")


@looped
async def test_policy_and_blocks_are_asked_about_who_it_is() -> None:
    stranger = Ends(ip_address("10.8.8.8"), 1, ip_address("192.0.2.1"), 443)
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        plan = listening(at, port, proxy_from=[BALANCER])
        for made, ends, reason in (
            (plan, stranger, "NO_MAPPING"),
            (blocking(plan, "10.9.8.0/24"), CLIENT, "BLOCKED_SOURCE"),
        ):
            at.apply(made)
            async with dial(at.port) as (reader, writer):
                writer.write(build_v2(ends))
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            assert at.reasons()[-1] == ("denied", reason)
            assert at.events[-1].decision.source == ends.source
        assert at.admission._gate.inside == 0


@looped
async def test_who_is_not_asked_to_is_not_believed() -> None:
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        at.apply(listening(at, port, "near", proxy_from=["127.0.0.9/32"]))
        async with dial(at.port) as (reader, writer):
            writer.write(build_v1(CLIENT))
            # Bytes like all others.
            assert await reader.readexactly(6) == b"PROXY "
            (tunnel,) = at.admission._tunnels.live
            assert str(tunnel.conversation.query.source) == "127.0.0.1"
            assert not tunnel.stays


@pytest.mark.parametrize("header", [build_v1, build_v2])
@looped
async def test_a_balancer_that_speaks_for_itself_is_the_client(header: Any) -> None:
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        at.apply(listening(at, port, "near", proxy_from=[BALANCER]))
        async with dial(at.port) as (reader, writer):
            writer.write(header(None) + b"hello")
            assert await reader.readexactly(5) == b"hello"


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 1.2.3.4\r\n", b"PROXY TCP4 "])
@looped
async def test_a_balancer_that_does_not_say_it_is_refused(said: bytes) -> None:
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        at.apply(listening(at, port, "near", proxy_from=[BALANCER]))
        async with dial(at.port) as (reader, writer):
            writer.write(said)
            writer.write_eof()
            with pytest.raises(ConnectionResetError):
                await reader.read()
        assert at.reasons() == [("denied", "MALFORMED")]


@looped
async def test_one_that_only_connects_is_nothing_to_write_down() -> None:
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        at.apply(listening(at, port, "near", proxy_from=[BALANCER]))
        async with dial(at.port):
            await until(lambda: at.admission._gate.inside == 1, "the connection")
        await until(lambda: at.admission._gate.inside == 0, "its end")
        assert at.reasons() == []


@looped
async def test_a_token_comes_behind_the_header() -> None:
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        at.apply(listening(at, port, auth="token", proxy_from=[BALANCER], send_proxy="v1"))
        async with dial(at.port) as (reader, writer):
            writer.write(build_v2(CLIENT) + f"MARCHPROXY/1 {TOKEN}\nhello".encode())
            assert await reader.readline() == b"OK\n"
            assert await reader.readline() == f"PROXY TCP4 10.9.8.7 127.0.0.1 50000 {at.port}\r\n".encode()
            assert await reader.readexactly(5) == b"hello"


@pytest.mark.parametrize(("how", "build_header"), [("v1", build_v1), ("v2", build_v2)])
@looped
async def test_backends_are_told_who_the_client_is(how: str, build_header: Any) -> None:
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        at.apply(listening(at, port, "near", send_proxy=how))
        async with dial(at.port) as (reader, writer):
            own, peer = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
            header = build_header(Ends(ip_address(own[0]), own[1], ip_address(peer[0]), peer[1]))
            writer.write(b"hello")
            assert await reader.readexactly(len(header) + 5) == header + b"hello"


@looped
async def test_a_backend_that_cannot_be_told_has_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("marchproxy.dataplane.admission.listening.introduce", gone)
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        at.apply(listening(at, port, "near", send_proxy="v2"))
        async with dial(at.port) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await reader.read()
        assert at.reasons() == [("denied", Reason.UPSTREAM_REFUSED.name)]


@pytest.mark.parametrize("bind", [ip_address("127.0.0.1"), ip_address("0.0.0.0"), None])
@looped
async def test_an_explicit_proxy_behind_a_balancer_is_asked_by_who_it_names(bind: Any) -> None:
    web = service("web", "127.0.0.2")
    async with desk() as at, tcp_server(echo, "127.0.0.2") as port:
        plan = explicit(at.port, FAR, web, mapping("out", "far", "web"))
        at.apply(replace(plan, introduced={Endpoint(bind, at.port): (ip_network(BALANCER),)}))
        asked = f"CONNECT 127.0.0.2:{port} HTTP/1.1\r\nHost: 127.0.0.2:{port}\r\n\r\n".encode()
        async with dial(at.port) as (reader, writer):
            writer.write(build_v2(CLIENT) + asked + b"early")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(5) == b"early"
            (tunnel,) = at.admission._tunnels.live
            assert tunnel.conversation.query.source == CLIENT.source
            assert tunnel.stays, "the kernel knows the balancer only"
        await until(lambda: at.admission._gate.inside == 0, "the gate to be left")
        async with dial(at.port) as (reader, writer):
            writer.write(asked)
            with pytest.raises(ConnectionResetError):
                await reader.read()
        assert at.reasons()[-1] == ("denied", "MALFORMED")
