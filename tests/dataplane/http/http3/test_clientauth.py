"""Certificates of clients over HTTP/3: the policy of TCP, by another handshake."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from marchproxy.dataplane.credentials.contexts import Contexts
from tests.certificates import identity
from tests.clientcerts import ClientAuthority
from tests.dataplane.admission.desk import Desk, desk
from tests.dataplane.http.http3.peer import Answered, Http3Client, http3
from tests.dataplane.http.site import LAN, QUICK, Backend, answer
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import tcp_server
from tests.policy import build
from tests.policy.build import mapping, service

OURS, THEIRS = ClientAuthority("ours"), ClientAuthority("theirs")
HOSTS = identity("site", "a.example", "b.example", "open.example", "paths.example")
REQUIRED, BAD = 0x100 + 116, 0x100 + 42
"""Alerts as QUIC says them (RFC 9001 section 4.8)."""


@asynccontextmanager
async def guarded(**fields: Any) -> AsyncGenerator[tuple[Desk, Backend]]:
    """A host for our clients, one for theirs, one for everybody, and one where it depends on the path."""
    contexts, backend = Contexts(), Backend(answer())
    contexts.learn([HOSTS])
    async with (
        tcp_server(backend.serve, "127.0.0.2") as backend.port,
        desk(limits=QUICK, contexts=contexts) as at,
    ):
        apply(at, backend, **fields)
        yield at, backend


def apply(at: Desk, backend: Backend, *, openly: dict[str, Any] | None = None, **fields: Any) -> None:
    def on(name: str, host: str, **more: Any) -> Any:
        where = f"127.0.0.1:{at.port}"
        return mapping(name, "lan", "web", where, "https,quic", host=f"{host}.example", tls="site", **more)

    at.apply(
        build.plan(
            LAN,
            service("web", "127.0.0.2", port=backend.port),
            on("a", "a", **{"client_ca": OURS.pem, **fields}),
            on("b", "b", client_ca=THEIRS.pem),
            on("open", "open", **(openly or {})),
            on("free", "paths"),
            on("shut", "paths", path_prefix="/shut", client_ca=OURS.pem),
        )
    )


def showing(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    pem = path.read_bytes()
    return {
        "certificate": x509.load_pem_x509_certificate(pem),
        "private_key": load_pem_private_key(pem, None),
    }


async def ask(client: Http3Client, *hosts: str, path: str = "/x") -> list[Answered]:
    return [await client.get(path, host, ("x-marchproxy-client-subject", "CN=forged")) for host in hosts]


@looped
async def test_a_client_is_known_by_its_certificate_and_by_nothing_that_it_says(tmp_path: Path) -> None:
    file, made = OURS.client(tmp_path, "alice", x509.DNSName("pc.example"), ou="ops")
    async with guarded() as (at, backend):
        async with http3(at.port, "a.example", **showing(file)) as client:
            found = await ask(client, "a.example", "b.example", "open.example")
        assert [each.status for each in found] == [200, 421, 200]
        assert found[1].fields["x-marchproxy-reason"] == "SNI_MISMATCH"
        assert backend.said("x-marchproxy-client-subject", 0) == "OU=ops,CN=alice"
        assert backend.said("x-marchproxy-client-names", 0) == "dns:pc.example"
        assert backend.said("x-marchproxy-client-serial", 0) == f"{made.serial_number:x}"
        assert "x-marchproxy-client" not in backend.heads[1]
        # Whoever names an open host has been asked for nothing.
        async with http3(at.port, "open.example", **showing(file)) as client:
            assert [each.status for each in await ask(client, "open.example", "a.example")] == [200, 421]


@pytest.mark.parametrize(
    ("who", "code"), [("nobody", REQUIRED), ("theirs", BAD), ("ended", BAD), ("revoked", BAD)]
)
@looped
async def test_who_shows_none_or_another_s_is_not_let_in(tmp_path: Path, who: str, code: int) -> None:
    authority = THEIRS if who == "theirs" else OURS
    file, made = authority.client(tmp_path, "bob", ended=who == "ended")
    listed = {"client_crl": OURS.revoking(made)} if who == "revoked" else {}
    async with guarded(**listed) as (at, backend):
        async with http3(at.port, "a.example", **showing(None if who == "nobody" else file)) as client:
            await until(client.gone.is_set)
            assert client.ended is not None
            assert client.ended.error_code == code
        await until(lambda: ("denied", "TLS_FAILED") in at.reasons())
        assert not backend.heads


@pytest.mark.parametrize(("pattern", "status"), [("cn:al*", 200), ("cn:bob", 403)])
@looped
async def test_names_may_be_asked_for(tmp_path: Path, pattern: str, status: int) -> None:
    file, _ = OURS.client(tmp_path, "alice")
    async with (
        guarded(client_names=[pattern]) as (at, _),
        http3(at.port, "a.example", **showing(file)) as client,
    ):
        [found] = await ask(client, "a.example")
        assert found.status == status
        assert found.fields.get("x-marchproxy-reason", "AUTH_INVALID") == "AUTH_INVALID"


@looped
async def test_a_host_whose_paths_differ_asks_and_decides_by_request(tmp_path: Path) -> None:
    file, _ = OURS.client(tmp_path, "alice")
    async with guarded() as (at, _):
        for shown, status in ((file, 200), (None, 403)):
            async with http3(at.port, "paths.example", **showing(shown)) as client:
                [free] = await ask(client, "paths.example")
                [shut] = await ask(client, "paths.example", path="/shut")
                assert (free.status, shut.status) == (200, status)
        assert shut.fields["x-marchproxy-reason"] == "AUTH_MISSING"


@looped
async def test_a_connection_of_before_another_list_is_sent_away(tmp_path: Path) -> None:
    file, made = OURS.client(tmp_path, "alice")
    async with guarded() as (at, backend), http3(at.port, "a.example", **showing(file)) as client:
        assert [each.status for each in await ask(client, "a.example")] == [200]
        apply(at, backend, client_crl=OURS.revoking(made))
        assert [each.status for each in await ask(client, "a.example")] == [421]
