"""HTTP/3 at listeners that read HTTP."""

import asyncio
import hashlib
import random
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from aioquic.h3.connection import ErrorCode
from aioquic.quic.packet import QuicErrorCode
from cryptography.x509 import DNSName, SubjectAlternativeName

from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.dataplane.http.http3.client import Http3Connection
from marchproxy.dataplane.http.http3.listeners import Http3Listeners
from marchproxy.policy.plan import Plan
from tests.certificates import identity
from tests.dataplane.admission.desk import TOKEN, Desk, Keys, desk
from tests.dataplane.http.http2.backend import Session, served2
from tests.dataplane.http.http2.peer import Client
from tests.dataplane.http.http3.peer import Http3Client, http3
from tests.dataplane.http.site import LAN, QUICK, Backend, answer, get, response, said
from tests.dataplane.http.test_tls import securely
from tests.dataplane.loops import PATIENCE, looped, until
from tests.dataplane.proxy.peers import tcp_server
from tests.policy import build
from tests.policy.build import mapping, service

PROXY = identity("proxy", "proxy.example", "localhost")


def known() -> Contexts:
    contexts = Contexts()
    contexts.learn([PROXY])
    return contexts


@asynccontextmanager
async def site(*answers: bytes, **fields: Any) -> AsyncGenerator[tuple[Desk, Backend]]:
    backend = Backend(*answers)
    serve = fields.pop("serve", backend.serve)
    limits, contexts = fields.pop("limits", QUICK), fields.pop("contexts", None) or known()
    keys = fields.pop("keys", None)
    async with (
        tcp_server(serve, "127.0.0.2") as backend.port,
        desk(limits=limits, contexts=contexts, keys=keys) as at,
    ):
        at.apply(plan(at, backend, **fields))
        yield at, backend


def plan(at: Desk, backend: Backend, *more: Any, sources: str = "lan", **fields: Any) -> Plan:
    """HTTP/3 at the desk's port, for every path below /here."""
    web = service("web", "127.0.0.2", port=backend.port)
    listen = f"127.0.0.1:{at.port}"
    wanted = {"path_prefix": "/here", "tls": "proxy", **fields}
    protocols = wanted.pop("protocols", "https,quic")
    return build.plan(LAN, web, mapping("www", sources, "web", listen, protocols, **wanted), *more)


@looped
async def test_a_request_goes_through() -> None:
    async with site(answer(b"hello", "200 OK", "X-Own: yes")) as (at, backend), http3(at.port) as client:
        found = await client.get("/here/x?y=1")
        assert (found.status, found.body, found.fields["x-own"]) == (200, b"hello", "yes")
        assert backend.heads[0].startswith("GET /here/x?y=1 HTTP/1.1\r\n")
        assert backend.said("host") == "proxy.example"
        assert backend.said("x-forwarded-proto") == "https"
        assert backend.said("via") == "3 marchproxy"


@looped
async def test_answers_over_tcp_say_where_http3_is() -> None:
    async with (
        site(answer(b"hello", "200 OK", 'Alt-Svc: h3=":1"')) as (at, _),
        securely(at.port, "proxy.example") as (
            reader,
            writer,
        ),
    ):
        writer.write(get())
        head, body = await response(reader)
        assert body == b"hello"
        assert said(head, "alt-svc") == [f'h3=":{at.port}"; ma=3600']


@looped
async def test_answers_of_http2_say_so_too() -> None:
    async with site(answer()) as (at, _), securely(at.port, "proxy.example", ["h2"]) as (reader, writer):
        client = Client(reader, writer)
        client.flush()
        heard = await client.hear(client.ask("/here"))
        assert (heard.status, heard.fields["alt-svc"]) == (200, f'h3=":{at.port}"; ma=3600')


@looped
async def test_a_call_of_grpc_goes_on_by_http2() -> None:
    """With its trailers, which end it."""

    def respond(session: Session, number: int) -> None:
        session.answer(number, b"said", ("content-type", "application/grpc"), grpc_status="0")

    async with (
        served2(respond, contexts=known(), protocol="grpc,https,quic", tls="proxy") as (at, backend),
        http3(at.port) as client,
    ):
        fields = ("content-type", "application/grpc"), ("te", "trailers")
        found = await client.answer(client.ask("/here/Say", "POST", "proxy.example", *fields, body=b"call"))
        assert (found.status, found.body, found.trailers) == (200, b"said", {"grpc-status": "0"})
        assert backend.asked[0]["via"] == "3 marchproxy"


@looped
async def test_bodies_of_any_size_go_both_ways() -> None:
    """The upload is echoed as its hash, the download checked by it."""
    big = random.Random(7).randbytes(1_500_000)
    up, down = hashlib.sha256(), hashlib.sha256(big).hexdigest()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while size := int(await reader.readline(), 16):
            up.update(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(big) + big)
        await writer.drain()

    async with site(serve=serve, limits=replace(QUICK, silence=20.0)) as (at, _), http3(at.port) as client:
        number = client.ask(method="POST", body=None)
        for start in range(0, len(big), 100_000):
            client.more(number, big[start : start + 100_000])
        client.more(number, b"", ends=True)
        found = await client.answer(number, 60)
        assert found.status == 200
        assert hashlib.sha256(found.body).hexdigest() == down
        assert up.hexdigest() == down


@looped
async def test_many_requests_at_a_time() -> None:
    async with site(answer(b"x" * 5000)) as (at, backend), http3(at.port) as client:
        numbers = [client.ask(f"/here/{index}") for index in range(250)]
        found = [await client.answer(number) for number in numbers]
        assert {each.status for each in found} == {200}
        assert {len(each.body) for each in found} == {5000}
        assert len(backend.heads) == 250


@looped
async def test_trailers_and_interim_answers() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n"
    async with site(early + chunks) as (at, backend), http3(at.port) as client:
        number = client.ask(method="POST", body=b"data", trailers=(("x-more", "1"),))
        found = await client.answer(number)
        assert (found.status, found.body) == (200, b"abc")
        assert found.interim == [103]
        assert found.trailers == {"x-sum": "9"}
        assert backend.bodies == [b"data"]


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@looped
async def test_answers_without_body(method: str) -> None:
    said = b"HTTP/1.1 304 Not Modified\r\n\r\n" if method == "GET" else answer(b"")
    async with site(said) as (at, _), http3(at.port) as client:
        found = await client.answer(client.ask(method=method))
        assert (found.status, found.body) == (304 if method == "GET" else 200, b"")


@looped
async def test_policy_decides_as_over_tcp() -> None:
    """A ban that knows of https alone holds for HTTP/3, and other paths are no route."""
    async with site(answer()) as (at, backend), http3(at.port) as client:
        listen = f"127.0.0.1:{at.port}"
        ban = mapping("ban", "all", "all", listen, "https", path_prefix="/here/admin", action="deny")
        at.apply(plan(at, backend, ban))
        denied = await client.get("/here/admin/x")
        assert (denied.status, denied.fields["x-marchproxy-reason"]) == (403, "DENY_MAPPING")
        assert (await client.get("/here/x")).status == 200
        assert (await client.get("/elsewhere")).fields["x-marchproxy-reason"] == "NO_MAPPING"
        assert (await client.get("/here/../admin")).status == 400
        requests = [event for event in at.events if event.exchanged is not None]
        assert {event.exchanged.version for event in requests if event.exchanged} == {"3"}
        assert {event.decision.protocol for event in requests} == {"udp"}


@looped
async def test_credentials_open_routes_and_can_be_taken_back() -> None:
    vault = service("vault", "127.0.0.2", auth="token")
    keys = Keys()
    async with site(answer(), keys=keys) as (at, backend):
        listen, ports = f"127.0.0.1:{at.port}", [str(backend.port)]
        made = mapping("www", "lan", "vault", listen, "https,quic", ports=ports, tls="proxy")
        at.apply(build.plan(LAN, vault, made))
        async with http3(at.port) as client:
            assert (await client.get()).status == 401
            token = ("authorization", f"Bearer {TOKEN}")
            assert (await client.get("/here", "proxy.example", token)).status == 200
            assert backend.said("authorization") is None
            assert backend.said("x-marchproxy-service") == "vault"


@looped
async def test_a_client_that_no_mapping_is_for_is_refused() -> None:
    async with site(answer()) as (at, backend):
        at.apply(plan(at, backend, service("far", "192.0.2.1"), sources="far"))
        client = Http3Client(at.port, "proxy.example", "127.0.0.1")
        await client.connect()
        assert client.ended is not None
        assert client.ended.error_code == QuicErrorCode.CONNECTION_REFUSED
        client.stop()
        assert ("denied", "NO_MAPPING") in at.reasons()


@looped
async def test_a_plan_that_takes_it_away_ends_connections_and_the_socket() -> None:
    async with site(answer()) as (at, backend), http3(at.port) as client:
        assert (await client.get()).status == 200
        at.apply(plan(at, backend, protocols="https"))
        assert (await client.end()).error_code == ErrorCode.H3_NO_ERROR
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", at.port))


@looped
async def test_what_a_credential_opened_ends_when_it_is_taken_back() -> None:
    """Of the requests of a connection, those alone."""
    vault = service("vault", "127.0.0.2", auth="token")
    async with site(b"", serve=never) as (at, backend):
        listen, ports = f"127.0.0.1:{at.port}", [str(backend.port)]
        made = mapping("www", "lan", "vault", listen, "https,quic", ports=ports, tls="proxy")
        at.apply(build.plan(LAN, vault, made))
        async with http3(at.port) as client:
            number = client.ask("/here", "GET", "proxy.example", ("authorization", f"Bearer {TOKEN}"))
            await until(lambda: bool(opened(at, number)))
            assert await at.admission.revoke(opened(at, number)) == 1
            assert (await client.answer(number)).reset == ErrorCode.H3_REQUEST_CANCELLED
            assert client.ended is None


def opened(at: Desk, number: int) -> str:
    """The token that opened a request; empty: it is not under way yet."""
    serving = at.admission._http3
    streams = [each._streams.get(number) for each in serving.live] if serving else []
    found = [each.exchange for each in streams if each and each.exchange]
    return found[0].verified.token if found and found[0].verified else ""


def http3_of(at: Desk) -> Http3Listeners:
    """What serves HTTP/3 there."""
    assert at.admission._http3 is not None
    return at.admission._http3


def live(at: Desk) -> Http3Connection:
    """The one connection."""
    return next(iter(http3_of(at).live))


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A backend that says nothing."""
    await reader.read()
    writer.close()


@looped
async def test_a_client_that_takes_nothing_is_waited_for() -> None:
    """And so is the backend with it: what it has not taken is not gathered here."""
    sent = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        with suppress(ConnectionError):
            for _ in range(1000):
                writer.write(bytes(100_000))
                await writer.drain()
                sent[0] += 100_000
        writer.close()

    async with (
        site(serve=serve, limits=replace(QUICK, silence=20.0)) as (at, _),
        http3(at.port, max_stream_data=100_000) as client,
    ):
        client.quic._write_stream_limits = lambda **_: None  # type: ignore[method-assign]
        number = client.ask()
        await until(lambda: len(client.answers[number].body) > 90_000)
        engine = live(at).engine
        before = -1
        while before != sent[0]:
            before = sent[0]
            await asyncio.sleep(0.5)
        assert engine.unsent(number) < 1_000_000
        # Sockets between here and there hold some.
        assert sent[0] < 50_000_000


@looped
async def test_a_backend_that_takes_nothing_holds_the_client_back() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with site(serve=serve, limits=replace(QUICK, silence=20.0)) as (at, _), http3(at.port) as client:
        number = client.ask(method="POST", body=None)
        data = bytes(100_000)
        for _ in range(200):
            client.more(number, data)
        await until(lambda: bool(http3_of(at).live))
        quic = live(at).engine
        await until(lambda: quic._local_max_data.used > 1_000_000)
        used = -1
        while used != quic._local_max_data.used:
            used = quic._local_max_data.used
            await asyncio.sleep(0.6)
        assert used < 15_000_000
        # Another request is answered nevertheless: for that there is room.
        other = client.ask("/elsewhere")
        assert (await client.answer(other)).status == 404


@looped
async def test_draining_answers_what_was_asked_and_says_so() -> None:
    answered = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await answered.wait()
        writer.write(answer(b"late"))

    async with site(serve=serve, limits=replace(QUICK, silence=20.0)) as (at, _), http3(at.port) as client:
        number = client.ask()
        await until(lambda: bool(http3_of(at).live) and bool(list(at.admission._live())))
        drained = asyncio.create_task(at.admission.drain(PATIENCE))
        await asyncio.sleep(0.1)
        late = client.ask()
        assert (await client.answer(late)).reset == ErrorCode.H3_REQUEST_REJECTED
        answered.set()
        assert (await client.answer(number)).body == b"late"
        assert (await client.end()).error_code == ErrorCode.H3_NO_ERROR
        await drained


@looped
async def test_a_renewed_certificate_is_shown_to_new_connections() -> None:
    contexts = known()
    async with site(answer(), contexts=contexts) as (at, _), http3(at.port) as before:
        renewed = identity("proxy", "proxy.example", "renewed.example")
        contexts.learn([renewed])
        async with http3(at.port) as after:
            assert "renewed.example" in names(after)
            assert "renewed.example" not in names(before)
            assert (await before.get()).status == (await after.get()).status == 200


@pytest.mark.parametrize(
    ("name", "shown"),
    [("two.example", "two.example"), ("x.wild.example", "*.wild.example"), ("none", "proxy.example")],
)
@looped
async def test_the_client_s_name_chooses_the_certificate(name: str, shown: str) -> None:
    contexts = Contexts()
    contexts.learn([PROXY, identity("two", "two.example", "*.wild.example")])
    async with site(answer(), contexts=contexts) as (at, backend):
        listen = f"127.0.0.1:{at.port}"
        other = mapping("y", "lan", "web", listen, "https", host="two.example", tls="two")
        at.apply(plan(at, backend, other))
        async with http3(at.port, name, verify_mode=ssl.CERT_NONE) as client:
            assert shown in names(client)


def names(client: Http3Client) -> list[str]:
    """Those of the certificate that was shown."""
    shown = client.quic.tls._peer_certificate
    assert shown is not None
    return shown.extensions.get_extension_for_class(SubjectAlternativeName).value.get_values_for_type(DNSName)
