"""TLS at listeners that read HTTP, and to backends that speak it."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
from cryptography import x509

from marchproxy.dataplane.credentials.contexts import Contexts, server_context
from tests.certificates import authority, identity
from tests.dataplane.admission.desk import TOKEN
from tests.dataplane.http.site import Backend, answer, get, only, response, routed, said, served
from tests.dataplane.http.test_switching import ACCEPTED, HANDSHAKE, websocket
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import Streams, dial
from tests.policy import build
from tests.policy.build import mapping, service

ONE, TWO = identity("one", "one.example", "*.wild.example"), identity("two", "two.example")


def known() -> Contexts:
    contexts = Contexts()
    contexts.learn([ONE, TWO])
    return contexts


@asynccontextmanager
async def securely(port: int, name: str, protocols: list[str] | None = None) -> AsyncGenerator[Streams]:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    try:
        yield reader, writer
    finally:
        writer.close()


def shown(writer: asyncio.StreamWriter) -> list[str]:
    """The hosts of the certificate that was shown."""
    raw = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    names = x509.load_der_x509_certificate(raw).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return names.value.get_values_for_type(x509.DNSName)


@pytest.mark.parametrize(
    ("name", "hosts"),
    [
        ("one.example", ["one.example", "*.wild.example"]),
        ("x.wild.example", ["one.example", "*.wild.example"]),
        ("two.example", ["two.example"]),
        ("TWO.example", ["two.example"]),
        ("none.example", ["one.example", "*.wild.example"]),
    ],
)
@looped
async def test_the_client_s_name_chooses_the_certificate(name: str, hosts: list[str]) -> None:
    async with served(answer(), contexts=known()) as (at, backend):
        web = service("web", "127.0.0.2", port=backend.port)
        listen = f"127.0.0.1:{at.port}"
        first = mapping("a", "lan", "web", listen, "https", host="one.example", tls="one")
        second = mapping("b", "lan", "web", listen, "https", tls="two")
        at.apply(build.plan(service("lan", "127.0.0.1"), web, first, second))
        async with securely(at.port, name, ["h3", "http/1.1"]) as (reader, writer):
            assert shown(writer) == hosts
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            writer.write(get("/x", name))
            assert (await response(reader))[1] == b"hello"
            assert backend.said("x-forwarded-proto") == "https"


@looped
async def test_a_renewed_certificate_is_shown_to_who_comes_next() -> None:
    contexts = known()
    tls = served(answer(), contexts=contexts, tls="one")
    async with tls as (at, _), securely(at.port, "h") as (reader, writer):
        contexts.learn([identity("one", "new.example")])
        async with securely(at.port, "h") as (_, other):
            assert shown(other) == ["new.example"]
        writer.write(get())
        assert (await response(reader))[1] == b"hello"


@looped
async def test_who_speaks_in_the_clear_is_told() -> None:
    tls = served(answer(), contexts=known(), tls="one")
    async with tls as (at, _), dial(at.port) as (reader, writer):
        writer.write(get())
        head, body = await response(reader)
        assert head.startswith("HTTP/1.1 400 ")
        assert b"https://" in body


@looped
async def test_a_handshake_that_fails_is_told_of() -> None:
    async with served(answer(), contexts=known(), tls="one") as (at, _):
        async with dial(at.port) as (reader, writer):
            writer.write(b"\x16\x03\x01\x00\x05hello")
            await reader.read()
        await until(lambda: ("denied", "TLS_FAILED") in at.reasons())
        assert at.admission._gate.inside == 0


@looped
async def test_without_its_certificate_nobody_is_served() -> None:
    async with served(answer(), contexts=Contexts(), tls="one") as (at, _):
        with pytest.raises(ConnectionResetError):
            async with securely(at.port, "h"):
                pass
        assert at.reasons() == [("denied", "NOT_CARRIED")]


@looped
async def test_websockets_under_tls_are_copied() -> None:
    async with served(serve=websocket, contexts=known(), tls="one") as (at, _):
        async with securely(at.port, "h") as (reader, writer):
            writer.write(HANDSHAKE)
            await response(reader)
            assert await reader.readexactly(8) == b"greeting"
            for size in (1, 3_000_000):
                writer.write(bytes(size))
                assert await reader.readexactly(size) == bytes(size)
            [flow] = await at.admission.flows(10)
            assert flow.sent.bytes >= 3_000_001
            assert at.admission._tunnels.live == set()
        await until(lambda: not at.admission._gate.inside)
        assert [kind for kind, _ in at.reasons()].count("flow-end") == 1


@looped
async def test_a_plan_that_no_longer_allows_it_ends_a_websocket_under_tls() -> None:
    async with served(serve=websocket, contexts=known(), tls="one") as (at, backend):
        async with securely(at.port, "h") as (reader, writer):
            writer.write(HANDSHAKE)
            await response(reader)
            assert await reader.readexactly(8) == b"greeting"
            at.apply(routed(at, backend.port, action="deny", tls="one"), 3)
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        await until(lambda: not at.admission._gate.inside)


@looped
async def test_a_credential_that_is_taken_back_ends_a_websocket_under_tls() -> None:
    async with served(serve=websocket, contexts=known()) as (at, backend):
        vault = service("vault", "127.0.0.2", auth="token", port=backend.port)
        made = mapping("keys", "lan", "vault", f"127.0.0.1:{at.port}", "https", tls="one")
        at.apply(build.plan(service("lan", "127.0.0.1"), vault, made))
        async with securely(at.port, "h") as (reader, writer):
            writer.write(HANDSHAKE[:-2] + f"Authorization: Bearer {TOKEN}\r\n\r\n".encode())
            await response(reader)
            assert await reader.readexactly(8) == b"greeting"
            assert await at.admission.revoke("1") == 1
            with suppress(ConnectionResetError):
                assert await reader.read() == b""


@looped
async def test_a_websocket_under_tls_whose_client_takes_nothing_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("marchproxy.dataplane.http.carrying.FLUSH", 0.1)

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ACCEPTED + bytes(30_000_000))
        await reader.read()

    flooded = served(serve=flood, contexts=known(), tls="one")
    async with flooded as (at, _), securely(at.port, "h") as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(HANDSHAKE)
        await until(
            lambda: bool(at.admission._reads_http().live) and bool(only(at).switched) and only(at)._full
        )
        connection = only(at)
        assert connection.switched is not None
        connection.switched.end()
        await until(lambda: not at.admission._gate.inside and not at.admission._reads_http()._pool._every)


@looped
async def test_nothing_goes_on_in_the_clear_once_tls_is_spoken() -> None:
    async with served(answer(), contexts=known()) as (at, backend), dial(at.port) as (reader, writer):
        writer.write(get())
        await response(reader)
        at.apply(routed(at, backend.port, tls="one"), 3)
        assert await reader.read() == b""


@looped
async def test_backends_prove_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Backend(answer())
    server = await asyncio.start_server(backend.serve, "127.0.0.2", 0, ssl=server_context(TWO))
    port = server.sockets[0].getsockname()[1]
    contexts = known()
    async with server, served(answer(), contexts=contexts) as (at, _):
        web = service("web", "127.0.0.2", port=port, tls=True)
        made = mapping("www", "lan", "web", f"127.0.0.1:{at.port}", "http", path_prefix="/here")
        at.apply(build.plan(service("lan", "127.0.0.1"), web, made))
        async with dial(at.port) as (reader, writer):
            writer.write(get())
            head, _ = await response(reader)
            assert head.startswith("HTTP/1.1 502 ")
            assert said(head, "x-marchproxy-reason") == ["TLS_FAILED"]
        trusting = ssl.create_default_context(cadata=TWO.chain)
        trusting.check_hostname = False
        monkeypatch.setattr(contexts, "_trusting", {("", (), "", True): trusting})
        async with dial(at.port) as (reader, writer):
            writer.write(get())
            assert (await response(reader))[1] == b"hello"
        assert routed(at, port).admitted


@looped
async def test_a_websocket_under_tls_that_is_silent_ends() -> None:
    tls = served(serve=websocket, contexts=known(), tls="one")
    async with tls as (at, backend), securely(at.port, "h") as (reader, writer):
        writer.write(HANDSHAKE)
        await response(reader)
        plan = routed(at, backend.port, tls="one")
        at.apply(replace(plan, settings=replace(plan.settings, tunnel_idle=1)), 3)
        connection = only(at)
        assert connection.switched is not None
        connection.switched.conversation.last_seen -= 2
        connection.tick(0.0)
        await until(lambda: ("flow-end", "IDLE") in at.reasons())
        await until(lambda: not at.admission._gate.inside)


@looped
async def test_a_service_may_have_a_ca_of_its_own() -> None:
    backend = Backend(answer(b"secret"))
    server = await asyncio.start_server(
        backend.serve, "127.0.0.2", 0, ssl=server_context(identity("web", "127.0.0.2"))
    )
    port = server.sockets[0].getsockname()[1]
    async with server, served(answer()) as (at, _):
        made = mapping("www", "lan", "web", f"127.0.0.1:{at.port}", "http", path_prefix="/here")
        for authorities, status in (
            (authority().chain, "200"),
            (authority("other").chain, "502"),
            ("", "502"),
        ):
            web = service("web", "127.0.0.2", port=port, tls=True, tls_ca=authorities)
            at.apply(build.plan(service("lan", "127.0.0.1"), web, made))
            async with dial(at.port) as (reader, writer):
                writer.write(get())
                assert (await response(reader))[0].split()[1] == status
