"""A client under TLS while it is talked to, and all that may go wrong before."""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from marchproxy.dataplane.admission.securewire import NotAgreed, SecureWire
from marchproxy.dataplane.credentials.contexts import server_context
from marchproxy.dataplane.proxy.protocol.secured import Secured
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Plan
from tests.certificates import identity, trusting
from tests.dataplane.admission.desk import TOKEN, Desk, desk, explicit
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import Streams, dial, echo, tcp_server
from tests.dataplane.proxy.protocol.agreeing import agree
from tests.dataplane.proxy.protocol.hellos import real_hello
from tests.policy.build import mapping, plan, service

CONTEXT = server_context(identity())
LAN = service("lan", "127.0.0.1")
VAULT = service("vault", "127.0.0.3", auth="token")
OUT = mapping("out", "lan", "vault")


def pair() -> tuple[SecureWire, Secured, socket.socket]:
    """A wire that has agreed, and its client's end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    wire = SecureWire(ours, CONTEXT)
    wire._secured, client = Secured(CONTEXT), Secured(trusting(), server=False, server_name="proxy.example")
    agree(wire._secured, client)
    wire._agreed = True
    return wire, client, theirs


@looped
async def test_bytes_their_end_and_time() -> None:
    wire, client, peer = pair()
    now = asyncio.get_running_loop().time
    assert await wire.receive(now() + 0.01) is None
    peer.sendall(client.seal(b"hello"))
    assert await wire.peek(now() + 1) == b"hello"
    assert await wire.receive(None) == b"hello"
    assert await wire.peek(now() + 0.01) == b""
    await wire.send(b"answer", 1.0)
    assert bytes(client.open(peer.recv(1000))) == b"answer"
    peer.sendall(client.close())
    assert await wire.receive(None) == b""
    wire.reset()
    peer.close()


@looped
async def test_who_sends_for_ever_what_opens_to_nothing_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Key updates, for one: there is always something to read, and never anything to be had."""
    wire, _, peer = pair()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(wire, "_take", _at_once)
    monkeypatch.setattr(wire, "_secured", Hollow())
    task = asyncio.create_task(other())
    assert await wire.receive(asyncio.get_running_loop().time() + 0.05) is None
    assert turns > 10
    task.cancel()
    wire.reset()
    peer.close()


class Hollow:
    """What comes is in order, and there is nothing in it."""

    ended = False

    def open(self, data: bytes) -> bytes:
        return b""


async def _at_once(until: float | None) -> bytes:
    return b"x"


@looped
async def test_a_fin_alone_is_no_end() -> None:
    wire, _, peer = pair()
    peer.close()
    with pytest.raises(ConnectionResetError):
        await wire.receive(None)
    wire.reset()


@looped
async def test_a_close_says_so_under_tls() -> None:
    wire, client, peer = pair()
    peer.sendall(client.seal(b"unread"))
    closing = asyncio.create_task(wire.close())
    await asyncio.sleep(0)
    assert not client.open(peer.recv(1000))
    assert client.ended
    assert peer.recv(1000) == b""
    peer.close()
    await closing
    assert wire.socket.fileno() < 0


async def shaken(*said: bytes, end: bool = False, until: float = 5.0) -> tuple[NotAgreed, bytes]:
    """How a handshake failed, and what the client was told."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    wire = SecureWire(ours, CONTEXT)
    for piece in said:
        theirs.sendall(piece)
    if end:
        theirs.shutdown(socket.SHUT_WR)
    try:
        with pytest.raises(NotAgreed) as caught:
            await wire.handshake(asyncio.get_running_loop().time() + until, 1.0)
        theirs.setblocking(False)
        try:
            told = theirs.recv(1000)
        except BlockingIOError:
            told = b""
        return caught.value, told
    finally:
        ours.close()
        theirs.close()


@pytest.mark.parametrize(
    ("said", "options", "reason", "alert"),
    [
        ([b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], {"end": False}, Reason.MALFORMED, b""),
        ([b"SSH-2.0-OpenSSH\r\n"], {}, Reason.MALFORMED, b"\x15"),
        ([b"\x16\x03\x01\x00\x05hello"], {}, Reason.MALFORMED, b"\x15"),
        ([bytes(5000)], {}, Reason.MALFORMED, b"\x15"),
        ([real_hello("proxy.example")[:100]], {"end": True}, Reason.MALFORMED, b""),
        ([real_hello("proxy.example")[:100]], {"until": 0.05}, Reason.TOO_SLOW, b""),
        ([], {"until": 0.05}, Reason.TOO_SLOW, b""),
        ([], {"end": True}, Reason.CLOSED, b""),
    ],
)
@looped
async def test_who_does_not_agree_is_told_why(
    said: list[bytes], options: dict[str, Any], reason: Reason, alert: bytes
) -> None:
    failed, told = await shaken(*said, **options)
    assert failed.reason is reason
    assert told[:1] == alert
    assert failed.plain_http is any(b"HTTP/1.1" in each for each in said)


def hello(**changes: object) -> bytes:
    """What a client says first."""
    context = trusting()
    for name, value in changes.items():
        if name == "ciphers":
            context.set_ciphers(str(value))
        else:
            setattr(context, name, value)
    client = Secured(context, server=False, server_name="proxy.example")
    client.shake(b"")
    return client.unsent()


@looped
async def test_no_common_cipher_is_not_malformed() -> None:
    old = hello(maximum_version=ssl.TLSVersion.TLSv1_2, ciphers="AES128-SHA")
    failed, told = await shaken(old)
    assert failed.reason is Reason.TLS_FAILED
    assert told[:1] == b"\x15"


@looped
async def test_a_version_that_is_too_old_is_not_malformed() -> None:
    # OpenSSL no longer says it by itself: a hello of TLS 1.2 that claims 1.0, without the extension of 1.3.
    modern = bytearray(hello(maximum_version=ssl.TLSVersion.TLSv1_2))
    assert modern[9:11] == b"\x03\x03"
    modern[9:11] = b"\x03\x01"
    failed, told = await shaken(bytes(modern))
    assert failed.reason is Reason.TLS_FAILED
    assert told[:1] == b"\x15"


@asynccontextmanager
async def secured(*entities: Any, at: str = "explicit") -> AsyncGenerator[Desk]:
    """An admission whose proxy, or listener, speaks TLS with the certificate `proxy`."""
    async with desk(*entities) as made:
        made.admission._explicit._contexts.learn([identity()])
        if at == "explicit":
            made.apply(with_tls(explicit(made.port, *entities)))
        yield made


def with_tls(made: Plan) -> Plan:
    tls: Mapping[Endpoint, str] = dict.fromkeys(made.explicit, "proxy")
    return replace(made, tls=tls, certificates=frozenset({"proxy"}))


@asynccontextmanager
async def calling(port: int) -> AsyncGenerator[Streams]:
    """A client under TLS."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=trusting(), server_hostname="proxy.example"
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def connect_to(port: int, token: str = TOKEN) -> bytes:
    target = f"127.0.0.3:{port}"
    bearer = f"Proxy-Authorization: Bearer {token}\r\n" if token else ""
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{bearer}\r\n".encode()


@looped
async def test_a_tunnel_through_the_proxy_under_tls_is_never_the_kernels() -> None:
    async with secured(LAN, VAULT, OUT) as at, tcp_server(echo, "127.0.0.3") as port:
        async with calling(at.port) as (reader, writer):
            writer.write(connect_to(port) + b"early")
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(5) == b"early"
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            (tunnel,) = at.admission._tunnels.live
            assert tunnel.stays
            assert tunnel.conversation.sent.bytes == 10
        await until(lambda: at.reasons()[-1] == ("flow-end", "RESET"))


@looped
async def test_refusals_are_told_under_tls() -> None:
    async with secured(LAN, VAULT, OUT) as at, calling(at.port) as (reader, writer):
        writer.write(connect_to(7, token=""))
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 407")
        assert at.reasons() == [("denied", "AUTH_MISSING")]


@looped
async def test_who_calls_in_the_clear_is_told_to_call_by_tls() -> None:
    async with secured(LAN, VAULT, OUT) as at, dial(at.port) as (reader, writer):
        writer.write(b"CONNECT www.example:443 HTTP/1.1\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"X-MarchProxy-Reason: MALFORMED" in answer
        assert b"https://" in answer
        assert at.reasons() == [("denied", "MALFORMED")]


@looped
async def test_a_certificate_that_is_not_there_refuses() -> None:
    async with secured(LAN, VAULT, OUT) as at:
        at.admission._explicit._contexts.learn([])
        async with dial(at.port) as (reader, writer):
            writer.write(hello())
            with pytest.raises(ConnectionResetError):
                await reader.read()
        assert at.reasons() == [("denied", "NOT_CARRIED")]
        assert at.admission._gate.inside == 0


@looped
async def test_who_does_not_trust_us_is_counted() -> None:
    async with secured(LAN, VAULT, OUT) as at:
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", at.port, ssl=trusting("another"))
        await until(lambda: at.reasons() == [("denied", "TLS_FAILED")])
        await until(lambda: at.admission._gate.inside == 0)


@pytest.mark.parametrize("wants", ["token", "nothing"])
@looped
async def test_a_listener_under_tls(wants: str) -> None:
    async with secured(at="listener") as at, tcp_server(echo, "127.0.0.3") as port:
        vault = service("vault", "127.0.0.3", auth="token" if wants == "token" else "none", port=port)
        rule = mapping("m", "lan", "vault", f"127.0.0.1:{at.port}", tls="proxy")
        made = plan(LAN, vault, rule)
        assert made.certificates == {"proxy"}
        at.apply(made)
        async with calling(at.port) as (reader, writer):
            if wants == "token":
                writer.write(f"MARCHPROXY/1 {TOKEN}\n".encode())
                assert await reader.readline() == b"OK\n"
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
        # A stranger is not even spoken to.
        async with dial(at.port, source="127.0.0.2") as (reader, writer):
            writer.write(hello())
            with pytest.raises(ConnectionResetError):
                await reader.read()
        assert ("denied", "NO_MAPPING") in at.reasons()


@looped
async def test_a_wrong_token_under_tls() -> None:
    async with secured(at="listener") as at:
        vault = service("vault", "127.0.0.3", auth="token", port=7)
        at.apply(plan(LAN, vault, mapping("m", "lan", "vault", f"127.0.0.1:{at.port}", tls="proxy")))
        async with calling(at.port) as (reader, writer):
            writer.write(b"MARCHPROXY/1 nonsense\n")
            assert await reader.read() == b"ERR AUTH_INVALID\n"


@looped
async def test_a_new_certificate_leaves_what_stands_alone() -> None:
    async with (
        secured(LAN, VAULT, OUT) as at,
        tcp_server(echo, "127.0.0.3") as port,
        calling(at.port) as (reader, writer),
    ):
        writer.write(connect_to(port))
        await reader.readuntil(b"\r\n\r\n")
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        at.admission._explicit._contexts.learn([identity()])
        async with calling(at.port) as (_, other):
            assert other.get_extra_info("ssl_object").getpeercert(binary_form=True) != shown
        writer.write(b"still")
        assert await reader.readexactly(5) == b"still"


@looped
async def test_tls_within_tls_is_held_to_its_name() -> None:
    vault = service("vault", "127.0.0.3", "www.shop.test")
    rule = mapping("m", "lan", "vault", sni=True)
    async with secured(LAN, vault, rule) as at, tcp_server(echo, "127.0.0.3") as port:
        for name, answer in (("www.shop.test", b"\x16"), ("www.other.test", b"\x15")):
            async with calling(at.port) as (reader, writer):
                writer.write(connect_to(port, token=""))
                assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
                writer.write(real_hello(name))
                assert (await reader.readexactly(7))[:1] == answer
        assert ("denied", "SNI_MISMATCH") in at.reasons()


@looped
async def test_under_audit_whoever_brings_no_token_is_let_through() -> None:
    async with secured(at="listener") as at, tcp_server(echo, "127.0.0.3") as port:
        vault = service("vault", "127.0.0.3", auth="token", port=port)
        rule = mapping("m", "lan", "vault", f"127.0.0.1:{at.port}", tls="proxy", audit=True)
        at.apply(plan(LAN, vault, rule))
        async with calling(at.port) as (reader, writer):
            writer.write(b"own protocol")
            assert await reader.readexactly(12) == b"own protocol"


@looped
async def test_a_handshake_drop_by_drop_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marchproxy.dataplane.admission.reception.DEADLINE", 0.2)
    async with secured(LAN, VAULT, OUT) as at, dial(at.port) as (reader, writer):
        for byte in hello()[:100]:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.005)
            if writer.is_closing():
                break
        with suppress(ConnectionError):
            assert await reader.read() == b""
        assert at.reasons() == [("denied", "TOO_SLOW")]
        await until(lambda: at.admission._gate.inside == 0)
