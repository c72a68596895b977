"""Mappings that want certificates of clients, several of them at one listener."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from marchproxy.dataplane.credentials.contexts import Contexts
from tests.certificates import identity
from tests.clientcerts import ClientAuthority, showing
from tests.dataplane.admission.desk import Desk
from tests.dataplane.http.http2.peer import Client
from tests.dataplane.http.site import Backend, answer, get, response, said, served
from tests.dataplane.loops import looped, until
from tests.policy import build
from tests.policy.build import mapping, service

OURS, THEIRS = ClientAuthority("ours"), ClientAuthority("theirs")
HOSTS = identity("site", "a.example", "b.example", "open.example")
EVIL = 'mallory\r\nx-marchproxy-client-subject: CN=root "\u00e9%'


@asynccontextmanager
async def guarded(**fields: Any) -> AsyncGenerator[tuple[Desk, Backend]]:
    """A listener with a host for our clients, one for theirs, and one for everybody."""
    contexts = Contexts()
    contexts.learn([HOSTS])
    async with served(answer(), contexts=contexts) as (at, backend):
        apply(at, backend, **fields)
        yield at, backend


def apply(at: Desk, backend: Backend, **fields: Any) -> None:
    def on(name: str, **more: Any) -> Any:
        where = f"127.0.0.1:{at.port}"
        return mapping(name, "lan", "web", where, "https", host=f"{name}.example", tls="site", **more)

    web = service("web", "127.0.0.2", port=backend.port)
    mappings = on("a", **{"client_ca": OURS.pem, **fields}), on("b", client_ca=THEIRS.pem), on("open")
    at.apply(build.plan(service("lan", "127.0.0.1"), web, *mappings))


async def ask(
    at: Desk, path: Path | None, *hosts: str, name: str = "a.example", context: ssl.SSLContext | None = None
) -> list[str]:
    """The heads of the answers to a request for each host, over one connection. Raises `OSError`."""
    made = context or showing(path)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port, ssl=made, server_hostname=name)
    try:
        heads = []
        for host in hosts or ("a.example",):
            writer.write(get("/x", host, "X-MarchProxy-Client-Subject: CN=forged"))
            heads.append((await response(reader))[0])
        return heads
    except asyncio.IncompleteReadError:
        raise ConnectionResetError from None
    finally:
        writer.close()


def statuses(heads: list[str]) -> list[str]:
    return [head.split()[1] for head in heads]


@looped
async def test_a_client_is_known_by_its_certificate_and_by_nothing_that_it_says(tmp_path: Path) -> None:
    path, made = OURS.client(tmp_path, "alice", x509.DNSName("pc.example"), ou="ops")
    async with guarded() as (at, backend):
        assert statuses(await ask(at, path)) == ["200"]
        assert backend.said("x-marchproxy-client-subject") == "OU=ops,CN=alice"
        assert backend.said("x-marchproxy-client-names") == "dns:pc.example"
        assert backend.said("x-marchproxy-client-serial") == f"{made.serial_number:x}"
        assert len(backend.said("x-marchproxy-client-fingerprint") or "") == 64
        assert "forged" not in backend.heads[0]
        assert statuses(await ask(at, None, "open.example", name="open.example")) == ["200"]
        assert "x-marchproxy-client" not in backend.heads[1]


@pytest.mark.parametrize("who", ["nobody", "theirs", "ended"])
@looped
async def test_who_shows_none_or_another_s_is_not_let_in(tmp_path: Path, who: str) -> None:
    path = None
    if who != "nobody":
        authority = THEIRS if who == "theirs" else OURS
        path, _ = authority.client(tmp_path, "bob", ended=who == "ended")
    async with guarded() as (at, backend):
        with pytest.raises(OSError):  # noqa: PT011  (TLS says why, in words of its own)
            await ask(at, path)
        await until(lambda: ("denied", "TLS_FAILED") in at.reasons())
        assert not backend.heads


@looped
async def test_another_host_s_authority_opens_nothing_over_the_same_connection(tmp_path: Path) -> None:
    ours, theirs = OURS.client(tmp_path, "alice")[0], THEIRS.client(tmp_path, "bob")[0]
    async with guarded() as (at, backend):
        heads = await ask(at, ours, "a.example", "b.example", "open.example", "a.example")
        assert statuses(heads) == ["200", "421", "200", "200"]
        assert said(heads[1], "x-marchproxy-reason") == ["SNI_MISMATCH"]
        assert statuses(await ask(at, theirs, "b.example", "a.example", name="b.example")) == ["200", "421"]
        # Whoever names an open host, or none, has been asked for nothing.
        for name in ("open.example", "other.example"):
            assert statuses(await ask(at, ours, "a.example", "b.example", name=name)) == ["421", "421"]
        assert len(backend.heads) == 4


@looped
async def test_a_session_of_one_host_is_of_no_use_at_another(tmp_path: Path) -> None:
    context = showing(OURS.client(tmp_path, "alice")[0])
    async with guarded() as (at, backend):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", at.port, ssl=context, server_hostname="a.example"
        )
        writer.write(get("/x", "a.example"))
        await response(reader)
        session = writer.get_extra_info("ssl_object").session
        writer.close()
        assert session is not None
        for name, answers in (("b.example", 0), ("a.example", 1)):
            heard, resumed = await asyncio.to_thread(resume, at.port, context, session, name)
            assert (heard.count(b"HTTP/1.1 200"), resumed) == (answers, bool(answers))
        assert len(backend.heads) == 2


@looped
async def test_who_resumes_a_session_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, made = OURS.client(tmp_path, "alice")
    context, listed = showing(path), {"client_crl": OURS.revoking()}
    async with guarded(**listed) as (at, backend):

        async def again(session: ssl.SSLSession | None) -> tuple[str, bool]:
            heard, resumed = await asyncio.to_thread(resume, at.port, context, session, "a.example")
            return heard.decode().partition(" ")[2][:3], resumed

        reader, writer = await asyncio.open_connection(
            "127.0.0.1", at.port, ssl=context, server_hostname="a.example"
        )
        writer.write(get("/x", "a.example"))
        await response(reader)
        session = writer.get_extra_info("ssl_object").session
        writer.close()
        assert await again(session) == ("200", True)
        # Names are the mapping's, and asked of each request.
        apply(at, backend, client_names=["cn:bob"], **listed)
        assert await again(session) == ("403", True)
        apply(at, backend, client_names=["cn:alice"], **listed)
        assert await again(session) == ("200", True)
        # A list that has run out lets nobody in.
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda: time.time_ns() / 1e9 + 2 * 86400)
            assert await again(session) == ("403", True)
        # By another list or CA the session is not known, and the certificate checked again.
        apply(at, backend, client_crl=OURS.revoking(made))
        assert await again(session) == ("", False)
        apply(at, backend, client_ca=THEIRS.pem)
        assert await again(session) == ("", False)


def resume(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None, name: str
) -> tuple[bytes, bool]:
    """What is answered to a request in a session of before, and whether it went on."""
    with socket.create_connection(("127.0.0.1", port), 10) as plain, suppress(OSError):
        tls = context.wrap_socket(plain, server_hostname=name, session=session)
        with tls:
            tls.sendall(get("/x", name, "Connection: close"))
            said = b""
            while piece := tls.recv(4096):
                said += piece
            return said, bool(tls.session_reused)
    return b"", False


@pytest.mark.parametrize(
    ("patterns", "status"),
    [
        (["cn:alice"], "200"),
        (["cn:Alice"], "403"),
        (["cn:al*"], "200"),
        (["cn:alice*"], "403"),
        (["ou:ops", "cn:nobody"], "200"),
        (["dns:*.EXAMPLE"], "200"),
        (["dns:alice"], "403"),
        (["email:alice@mail.example"], "200"),
        (["uri:spiffe://site/*"], "200"),
        (["ip:10.9.8.7"], "200"),
        (["o:ops"], "403"),
    ],
)
@looped
async def test_names_may_be_asked_for(tmp_path: Path, patterns: list[str], status: str) -> None:
    more = (
        x509.DNSName("pc.example"),
        x509.RFC822Name("alice@mail.example"),
        x509.UniformResourceIdentifier("spiffe://site/alice"),
        x509.IPAddress(ip_address("10.9.8.7")),
    )
    path, _ = OURS.client(tmp_path, "alice", *more, ou="ops")
    async with guarded(client_names=patterns) as (at, _):
        assert statuses(await ask(at, path)) == [status]


@looped
async def test_what_is_revoked_is_not_let_in_from_then_on(tmp_path: Path) -> None:
    alice, hers = OURS.client(tmp_path, "alice")
    mallory, his = OURS.client(tmp_path, "mallory")
    async with guarded(client_crl=OURS.revoking(his)) as (at, backend):
        assert statuses(await ask(at, alice)) == ["200"]
        with pytest.raises(OSError):  # noqa: PT011
            await ask(at, mallory)
        made = showing(alice)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", at.port, ssl=made, server_hostname="a.example"
        )
        apply(at, backend, client_crl=OURS.revoking(his, hers))
        # A connection of before was checked by another list.
        writer.write(get("/x", "a.example"))
        assert (await response(reader))[0].split()[1] == "421"
        writer.close()
        with pytest.raises(OSError):  # noqa: PT011
            await ask(at, alice)


@looped
async def test_a_host_whose_paths_differ_asks_and_decides_by_request(tmp_path: Path) -> None:
    path, _ = OURS.client(tmp_path, "alice")
    contexts = Contexts()
    contexts.learn([HOSTS])
    async with served(answer(), contexts=contexts) as (at, backend):
        web, where = service("web", "127.0.0.2", port=backend.port), f"127.0.0.1:{at.port}"
        free = mapping("free", "lan", "web", where, "https", host="a.example", tls="site")
        more = {"host": "a.example", "path_prefix": "/x", "tls": "site", "client_ca": OURS.pem}
        at.apply(
            build.plan(
                service("lan", "127.0.0.1"), web, free, mapping("x", "lan", "web", where, "https", **more)
            )
        )
        for shown, status in ((path, "200"), (None, "403")):
            [head] = await ask(at, shown)
            assert head.split()[1] == status
        assert said(head, "x-marchproxy-reason") == ["AUTH_MISSING"]


@looped
async def test_no_name_in_a_certificate_begins_a_field(tmp_path: Path) -> None:
    path, _ = OURS.client(tmp_path, EVIL)
    async with guarded() as (at, backend):
        assert statuses(await ask(at, path)) == ["200"]
        assert backend.heads[0].count("\nx-marchproxy-client-subject") == 1
        told = backend.said("x-marchproxy-client-subject") or ""
        assert told.isascii()
        assert "%0D%0A" in told


@asynccontextmanager
async def over_http2(at: Desk, path: Path | None, name: str) -> AsyncGenerator[Client]:
    """A connection that has chosen HTTP/2 by ALPN."""
    context = showing(path)
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port, ssl=context, server_hostname=name)
    try:
        made = Client(reader, writer)
        made.flush()
        yield made
    finally:
        writer.close()


@looped
async def test_over_http2_each_stream_is_asked_for_itself(tmp_path: Path) -> None:
    path, _ = OURS.client(tmp_path, "alice", ou="ops")
    async with guarded(client_names=["ou:ops"]) as (at, backend), over_http2(at, path, "a.example") as peer:
        numbers = [
            peer.ask("/x", ("x-marchproxy-client-subject", "CN=forged"), scheme="https", authority=host)
            for host in ("a.example", "b.example", "open.example", "a.example")
        ]
        heard = [await peer.hear(number) for number in numbers]
        assert [each.status for each in heard] == [200, 421, 200, 200]
        assert heard[1].fields["x-marchproxy-reason"] == "SNI_MISMATCH"
        assert not any("forged" in head for head in backend.heads)
        told = [head for head in backend.heads if "x-marchproxy-client-subject: OU=ops,CN=alice" in head]
        assert len(told) == 2
        ids = [
            line for head in backend.heads for line in head.split("\r\n") if line.startswith("x-request-id")
        ]
        assert len(set(ids)) == 3
    async with guarded() as (at, _), over_http2(at, path, "open.example") as peer:
        number = peer.ask("/x", scheme="https", authority="a.example")
        assert (await peer.hear(number)).status == 421
