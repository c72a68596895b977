"""Listeners of mappings that want a token or a TLS name first."""

import ssl
from dataclasses import replace
from typing import Any

import pytest

from marchproxy.policy.plan import Plan
from tests.dataplane.admission.desk import OLD, TOKEN, Desk, blocking, desk, explicit
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import Streams, ask, dial, echo, free_port, tcp_server
from tests.policy import build
from tests.policy.build import mapping, service

LAN = service("lan", "127.0.0.1")


def listening(at: Desk, backend: int, address: str = "127.0.0.1", **fields: Any) -> Plan:
    """A plan with a listener in the place of the explicit proxy."""
    vault = service("vault", "127.0.0.3", auth="token", port=backend)
    return build.plan(LAN, vault, mapping("keys", "lan", "vault", f"{address}:{at.port}", **fields))


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (f"MARCHPROXY/1 {TOKEN}\nearly", b"OK\nearly"),
        (f"vault:{TOKEN}\nearly", b"AUTH_OK\nearly"),
        ("MARCHPROXY/1 wrong\n", b"ERR AUTH_INVALID\n"),
        (f"MARCHPROXY/1 {OLD}\n", b"ERR AUTH_EXPIRED\n"),
        ("vault:wrong\n", b"AUTH_FAILED\n"),
        ("GET / HTTP/1.1\r\n\r\n", b"ERR AUTH_MISSING\n"),
    ],
)
@looped
async def test_a_line_with_a_token_comes_first(said: str, answer: bytes) -> None:
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        at.apply(listening(at, port))
        async with dial(at.port) as (reader, writer):
            writer.write(said.encode())
            assert await reader.readexactly(len(answer)) == answer


@looped
async def test_who_waits_is_challenged() -> None:
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        at.apply(listening(at, port))
        async with dial(at.port) as (reader, writer):
            assert await reader.readline() == b"MARCHPROXY_AUTH\n"
            writer.write(f"vault:{TOKEN}\n".encode())
            assert await reader.readline() == b"AUTH_OK\n"


@looped
async def test_who_is_no_source_is_reset_unheard() -> None:
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        at.apply(listening(at, port))
        with pytest.raises(ConnectionResetError):
            await ask(at.port, source="127.0.0.9")
        assert at.reasons() == [("denied", "NO_MAPPING")]


@looped
async def test_a_dead_backend_is_told_after_the_token() -> None:
    async with desk() as at:
        at.apply(listening(at, free_port()))
        async with dial(at.port) as (reader, writer):
            writer.write(f"MARCHPROXY/1 {TOKEN}\n".encode())
            assert await reader.read() == b"ERR UPSTREAM_REFUSED\n"


@looped
async def test_under_audit_who_brings_no_token_is_let_in_and_reported() -> None:
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        at.apply(listening(at, port, audit=True))
        async with dial(at.port) as (reader, writer):
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            assert at.reasons()[0] == ("audited", "AUTH_MISSING")
        async with dial(at.port) as (reader, writer):
            writer.write(f"MARCHPROXY/1 {TOKEN}\nhello".encode())
            assert await reader.readexactly(8) == b"OK\nhello"


@looped
async def test_a_mapping_without_a_wish_shares_the_listener() -> None:
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        free = service("free", "127.0.0.3", port=port)
        vault = service("vault", "127.0.0.3", auth="token", port=port)
        guest = service("guest", "127.0.0.9")
        where = f"127.0.0.1:{at.port}"
        at.apply(
            build.plan(
                LAN,
                free,
                vault,
                guest,
                mapping("a", "lan", "vault", where),
                mapping("b", "guest", "free", where),
            )
        )
        async with dial(at.port, source="127.0.0.9") as (reader, writer):
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"


def hello(name: str | None) -> bytes:
    """What a TLS client says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def shop(at: Desk, port: int, **fields: Any) -> Plan:
    target = service("shop", "127.0.0.3", "www.shop.test", port=port)
    return build.plan(LAN, target, mapping("tls", "lan", "shop", f"127.0.0.1:{at.port}", sni=True, **fields))


async def answer(streams: Streams, data: bytes) -> bytes:
    """What comes back for a hello: itself, from behind, or an alert."""
    reader, writer = streams
    writer.write(data)
    writer.write_eof()
    return await reader.read()


@pytest.mark.parametrize(
    ("name", "without", "reason"),
    [
        ("www.shop.test", "deny", ""),
        ("evil.test", "allow", "SNI_MISMATCH"),
        (None, "deny", "SNI_MISSING"),
        (None, "allow", ""),
        (None, "address", ""),
    ],
)
@looped
async def test_tls_must_name_a_host_of_the_service(name: str | None, without: str, reason: str) -> None:
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        at.apply(shop(at, port, sni_missing=without))
        data = hello(name)
        async with dial(at.port) as streams:
            found = await answer(streams, data)
        assert (found == data) is not bool(reason)
        if reason:
            assert found[0] == 21
            await until(lambda: at.reasons() == [("denied", reason)])
            assert at.events[0].decision.name == (name or "")


@pytest.mark.parametrize(("name", "passes"), [("www.shop.test", True), ("evil.test", False)])
@looped
async def test_behind_a_token_the_name_is_looked_at_too(name: str, passes: bool) -> None:
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        target = service("vault", "127.0.0.3", "www.shop.test", auth="token", port=port)
        wanted = mapping("tls", "lan", "vault", f"127.0.0.1:{at.port}", sni=True)
        at.apply(build.plan(LAN, target, wanted))
        data = hello(name)
        async with dial(at.port) as streams:
            found = await answer(streams, f"MARCHPROXY/1 {TOKEN}\n".encode() + data)
        assert (found == b"OK\n" + data) is passes


@pytest.mark.parametrize(
    ("asked", "named", "reason"),
    [
        ("www.shop.test", "www.shop.test", ""),
        ("www.shop.test", "other.shop.test", "SNI_MISMATCH"),
        ("127.0.0.3", "www.shop.test", ""),
        ("127.0.0.3", "evil.test", "SNI_MISMATCH"),
        ("127.0.0.3", "www.neighbour.test", "SNI_MISMATCH"),
    ],
)
@looped
async def test_what_connect_and_tls_name_must_agree(asked: str, named: str, reason: str) -> None:
    target = service("shop", "127.0.0.3", "*.shop.test")
    async with (
        desk(
            LAN,
            target,
            service("neighbour", "127.0.0.3", "*.neighbour.test"),
            mapping("elsewhere", "lan", "neighbour", ports="1"),
            mapping("tls", "lan", "shop", sni=True),
            names={"www.shop.test": ["127.0.0.3"]},
        ) as at,
        tcp_server(echo, "127.0.0.3") as port,
        dial(at.port) as streams,
    ):
        streams[1].write(f"CONNECT {asked}:{port} HTTP/1.1\r\nHost: {asked}:{port}\r\n\r\n".encode())
        assert (await streams[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        data = hello(named)
        assert (await answer(streams, data) == data) is not bool(reason)
        if reason:
            assert ("denied", reason) in at.reasons()


def behind(at: Desk, port: int, way: str) -> tuple[Plan, str, str]:
    """A plan that wants www.shop.test by TLS, what a client says before TLS, and how the answer ends."""
    where = f"127.0.0.1:{at.port}"
    shops = service("shop", "127.0.0.3", "www.shop.test", port=port)
    locked = service("vault", "127.0.0.3", "www.shop.test", auth="token", port=port)
    match way:
        case "address":
            head = f"CONNECT 127.0.0.3:{port} HTTP/1.1\r\nHost: 127.0.0.3:{port}\r\n\r\n"
            plan = explicit(at.port, LAN, shops, mapping("tls", "lan", "shop", sni=True))
            return plan, head, "\r\n\r\n"
        case "token":
            plan = build.plan(LAN, locked, mapping("tls", "lan", "vault", where, sni=True))
            return plan, f"MARCHPROXY/1 {TOKEN}\n", "OK\n"
        case _:
            return build.plan(LAN, shops, mapping("tls", "lan", "shop", where, sni=True)), "", ""


@pytest.mark.parametrize("way", ["listener", "token", "address"])
@looped
async def test_a_name_that_is_blocked_opens_nothing_by_tls(way: str) -> None:
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        plan, said, _ = behind(at, port, way)
        at.apply(blocking(plan, "www.shop.test"))
        async with dial(at.port) as streams:
            found = await answer(streams, said.encode() + hello("www.shop.test"))
        assert found[-7] == 21  # an alert
        assert ("denied", "BLOCKED_DESTINATION") in at.reasons()


@pytest.mark.parametrize("way", ["listener", "token", "address"])
@looped
async def test_a_name_that_is_blocked_later_ends_what_tls_opened(way: str) -> None:
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        plan, said, heard = behind(at, port, way)
        at.apply(plan)
        data = hello("www.shop.test")
        async with dial(at.port) as (reader, writer):
            writer.write(said.encode() + data)
            if heard:
                await reader.readuntil(heard.encode())
            assert await reader.readexactly(len(data)) == data
            at.apply(blocking(plan, "www.other.test"), 3)
            writer.write(b"still")
            assert await reader.readexactly(5) == b"still"
            at.apply(blocking(plan, "www.shop.test"), 4)
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
        assert at.reasons()[-1] == ("flow-end", "BLOCKED_DESTINATION")
        assert at.events[-1].decision.name == "www.shop.test"


@looped
async def test_a_port_moves_between_the_explicit_proxy_and_a_mapping() -> None:
    """The same socket address in other hands: nobody is refused meanwhile."""
    async with desk() as at, tcp_server(echo, "127.0.0.3") as port:
        before = listening(at, port)
        at.apply(before)
        async with dial(at.port) as (reader, writer):
            writer.write(f"MARCHPROXY/1 {TOKEN}\n".encode())
            assert await reader.readline() == b"OK\n"
            at.apply(replace(before, settings=replace(before.settings, tunnel_idle=60)), 3)
            writer.write(b"still")
            assert await reader.readexactly(5) == b"still"
