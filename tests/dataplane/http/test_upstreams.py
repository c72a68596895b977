"""Servers that others wrote as backends, by each version of HTTP, for clients of each version."""

import asyncio
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.dataplane.health.probes import probe
from marchproxy.policy.checks import BackendKey
from marchproxy.store.certificates import Identity
from tests.certificates import authority, identity
from tests.clientcerts import ClientAuthority
from tests.dataplane.admission.desk import Desk, desk
from tests.dataplane.http.http3.peer import http3
from tests.dataplane.http.realservers import (
    ADDRESS,
    ECHO,
    LARGE,
    Door,
    Server,
    caddy,
    hypercorn,
    nginx,
    uvicorn,
)
from tests.dataplane.http.site import LAN, QUICK
from tests.dataplane.loops import looped
from tests.policy import build
from tests.policy.build import mapping, service

pytestmark = pytest.mark.requires(commands=["curl", "nginx"])

PROXY = identity("proxy", "proxy.example")
KINDS = (("1.1", False), ("1.1", True), ("2", False), ("2", True))
SERVERS = (
    *(("nginx", *kind) for kind in KINDS),
    *(("caddy", *kind) for kind in KINDS),
    ("uvicorn", "1.1", False),
    *(("hypercorn", *kind) for kind in KINDS),
)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp
        yield {
            make.__name__: stack.enter_context(make(folder(make.__name__)))
            for make in (nginx, caddy, uvicorn, hypercorn)
        }


@asynccontextmanager
async def before(door: Door, *known: Identity, **fields: Any) -> AsyncGenerator[Desk]:
    """A listener of all versions before a server, that asks it by the door's."""
    contexts = Contexts()
    contexts.learn([PROXY, *known])
    own = {"tls": True, "tls_ca": authority().chain} if door.tls else {}
    protocol = "grpc" if door.version == "2" else "http"
    web = service("web", ADDRESS, port=door.port, protocol=protocol, **own, **fields)
    async with desk(limits=QUICK, contexts=contexts) as at:
        made = mapping("www", "lan", "web", f"127.0.0.1:{at.port}", "https,quic", tls="proxy")
        at.apply(build.plan(LAN, web, made))
        yield at


async def curl(folder: Path, port: int, path: str, *flags: str) -> tuple[str, bytes]:
    """Version and status, and body."""
    (folder / "ca.pem").write_text(authority().chain)
    words = ["curl", "-sS", "-m", "20", "--cacert", str(folder / "ca.pem"), *flags]
    words += ["-w", "%{stderr}%{http_version} %{http_code}", "--resolve", f"proxy.example:{port}:127.0.0.1"]
    words.append(f"https://proxy.example:{port}{path}")
    made = await asyncio.to_thread(subprocess.run, words, capture_output=True, check=False)
    return made.stderr.decode(), made.stdout


async def ask(folder: Path, at: Desk, client: str, path: str, method: str = "GET", body: bytes = b"") -> Any:
    """Version, status and body, by a client of a version: curl, or aioquic."""
    if client == "3":
        async with http3(at.port) as connection:
            answer = await connection.answer(connection.ask(path, method, body=body))
            return f"3 {answer.status}", answer.body
    (folder / "body").write_bytes(body)
    flags = ["--http2" if client == "2" else "--http1.1", *(["-I"] if method == "HEAD" else [])]
    flags += ["--data-binary", f"@{folder}/body"] if body else []
    said, content = await curl(folder, at.port, path, *flags)
    return said, b"" if method == "HEAD" else content


@pytest.mark.parametrize("client", ["1.1", "2", "3"])
@pytest.mark.parametrize(("name", "version", "tls"), SERVERS)
def test_a_client_of_any_version_is_answered_by_a_server_of_any(
    servers: dict[str, Server], tmp_path: Path, client: str, name: str, version: str, tls: bool
) -> None:
    @looped
    async def run() -> None:
        async with before(servers[name].doors[version, tls]) as at:
            shown, said = await ask(tmp_path, at, client, "/said")
            spoken = said.decode().split()[:2]
            assert (shown, spoken[1]) == (f"{client} 200", "GET")
            assert spoken[0].removesuffix(".0") == f"HTTP/{version}"
            assert (await ask(tmp_path, at, client, "/large"))[1] == LARGE
            if client != "3":
                # aioquic's client takes no answer to HEAD that says a length.
                assert await ask(tmp_path, at, client, "/large", "HEAD") == (f"{client} 200", b"")
            shown, content = await ask(
                tmp_path, at, client, "/said" if name == "nginx" else "/echo", "POST", ECHO
            )
            assert shown == f"{client} 200"
            assert content == (f"{said.split()[0].decode()} POST ".encode() if name == "nginx" else ECHO)

    run()


def shown(folder: Path, by: ClientAuthority) -> Identity:
    """A certificate of a client, as the daemon has it."""
    path, _ = by.client(folder, "edge")
    key, _, chain = path.read_text().partition("-----BEGIN CERTIFICATE")
    return Identity("edge", f"-----BEGIN CERTIFICATE{chain}", key.encode())


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_a_server_that_wants_a_certificate_of_its_clients_is_shown_one(tmp_path: Path, version: str) -> None:
    """nginx with `ssl_verify_client on` answers 400 to those without, and to those of another CA."""
    ours, others = ClientAuthority("ours"), ClientAuthority("others")

    @looped
    async def run(door: Door) -> None:
        for known, fields, expected in (
            (shown(tmp_path, ours), {"tls_cert": "edge"}, b"CN=edge"),
            (shown(tmp_path, ours), {}, b"400 Bad Request"),
            (shown(tmp_path, others), {"tls_cert": "edge"}, b"400 Bad Request"),
        ):
            async with before(door, known, **fields) as at:
                said, body = await curl(tmp_path, at.port, "/said")
                assert expected in body
                assert said.split()[1] == ("200" if expected == b"CN=edge" else "400")
        async with before(door, tls_cert="edge") as at:
            said, body = await curl(tmp_path, at.port, "/said")
            assert said.split()[1] == "502"

    with nginx(tmp_path, clients_of=ours.pem) as server:
        run(server.doors[version, True])


def test_checks_show_it_too(tmp_path: Path) -> None:
    ours = ClientAuthority("ours")
    contexts = Contexts()
    contexts.learn([shown(tmp_path, ours)])

    @looped
    async def run(door: Door) -> None:
        web = {"port": door.port, "tls": True, "health": "https:/said"}
        for fields, said in (({"tls_cert": "edge"}, ""), ({}, "HTTP 400")):
            made = service("web", ADDRESS, **web, **fields)
            plan = build.plan(LAN, made, mapping("www", "lan", "web", "127.0.0.1:80", "http"))
            [watched] = plan.watched
            assert watched.backend == BackendKey("web", watched.backend.address, door.port)
            assert watched.check is not None
            assert await probe(watched.backend, watched.check, contexts) == said

    with nginx(tmp_path, clients_of=ours.pem) as server:
        run(server.doors["1.1", True])
