"""probes: real sockets, on loopback."""

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from marchproxy.dataplane.health import probes
from marchproxy.dataplane.health.probes import CannotCheck, probe
from marchproxy.policy.checks import BackendKey, Check
from tests.dataplane.loops import looped

HELD = 300.0
"""Seconds; nobody waits for them."""


def check(method: str, *, path: str = "/up", host: str = "127.0.0.1", timeout: float = 5) -> Check:
    return Check(method, path, host, 5, timeout, 2, 3)


def at(port: int, address: str = "127.0.0.1") -> BackendKey:
    return BackendKey("web", ip_address(address), port)


class Server:
    """Answers every connection with the same bytes, and remembers what it was asked."""

    def __init__(self, answer: bytes, *, silent: bool) -> None:
        self.answer = answer
        self.silent = silent
        self.requests: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            if self.silent:
                await asyncio.sleep(HELD)
            writer.write(self.answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(
    answer: bytes, *, silent: bool = False, secure: ssl.SSLContext | None = None, address: str = "127.0.0.1"
) -> AsyncGenerator[Server]:
    made = Server(answer, silent=silent)
    listening = await asyncio.start_server(made.serve, address, 0, ssl=secure)
    made.port = listening.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listening.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@looped
async def test_tcp_connects_and_resets(address: str) -> None:
    async with serving(b"", address=address) as server:
        assert await probe(at(server.port, address), check("tcp")) == ""
        assert server.requests == []


@pytest.mark.parametrize("method", ["tcp", "http", "https"])
@looped
async def test_a_closed_port_is_refused(method: str) -> None:
    assert await probe(at(free_port()), check(method)) == "refused"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.1 302 Found\r\n\r\n", ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "HTTP 404"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "HTTP 503"),
        (b"HTTP/1.1 204 No Content\r\n" + b"X: y\r\n" * 5000, ""),
        (b"220 mail.example.com ESMTP\r\n", "the answer is not HTTP/1"),
        (b"HTTP/1.1 200", "closed without an answer"),
        (b"", "closed without an answer"),
    ],
)
@looped
async def test_http_by_status(answer: bytes, expected: str) -> None:
    async with serving(answer) as server:
        assert await probe(at(server.port), check("http", host="www.example.com")) == expected
        (asked,) = server.requests
        assert asked.startswith(f"GET /up HTTP/1.1\r\nHost: www.example.com:{server.port}\r\n".encode())


@pytest.mark.parametrize("method", ["http", "https"])
@looped
async def test_silence_ends_with_the_timeout(method: str) -> None:
    async with serving(b"", silent=True) as server:
        assert await probe(at(server.port), check(method, timeout=0.05)) == "no answer within 0.05 s"


def self_signed(folder: Path) -> ssl.SSLContext:
    """A server's context with a certificate that nobody trusts, for a name that nobody asked for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other.example.com")])
    now = datetime.now(UTC)
    certificate = x509.CertificateBuilder(
        name, name, key.public_key(), 1, now - timedelta(days=9), now - timedelta(days=1)
    ).sign(key, hashes.SHA256())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key").write_bytes(key.private_bytes(*form))
    (folder / "certificate").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate", folder / "key")
    return context


@pytest.mark.parametrize(("host", "sni"), [("www.example.com", "www.example.com"), ("127.0.0.1", None)])
@looped
async def test_https_takes_any_certificate_and_names_whom_it_asks_for(
    tmp_path: Path, host: str, sni: str | None
) -> None:
    names: list[str | None] = []
    context = self_signed(tmp_path)
    context.sni_callback = lambda _, name, __: names.append(name)
    async with serving(b"HTTP/1.1 200 OK\r\n\r\n", secure=context) as server:
        assert await probe(at(server.port), check("https", host=host)) == ""
        assert names == [sni]
        assert server.requests[0].startswith(b"GET /up HTTP/1.1\r\n")


@looped
async def test_https_of_a_server_without_tls() -> None:
    async with serving(b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        server.answer = b""
        listening = await asyncio.start_server(_plain, "127.0.0.1", 0)
        async with listening:
            port = listening.sockets[0].getsockname()[1]
            assert (await probe(at(port), check("https"))).startswith("TLS: ")


def with_sockets(make: Callable[..., object]) -> SimpleNamespace:
    """The socket module as probes see it, with another way to make sockets."""
    return SimpleNamespace(**{**vars(socket), "socket": make})


async def _plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()
    writer.close()


@pytest.mark.requires("root")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@looped
async def test_icmp_is_answered_by_ourselves(address: str) -> None:
    assert await probe(at(0, address), check("icmp")) == ""


@pytest.mark.requires("root")
@looped
async def test_raw_sockets_serve_where_ping_sockets_are_not_permitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds: list[int] = []

    class Sockets(socket.socket):
        def __init__(self, family: int, kind: int, protocol: int) -> None:
            kinds.append(kind)
            if kind == socket.SOCK_DGRAM:
                raise PermissionError(errno.EACCES, "not in the group")
            super().__init__(family, kind, protocol)

    monkeypatch.setattr(probes, "socket", with_sockets(Sockets))
    for address in ("127.0.0.1", "::1"):
        assert await probe(at(0, address), check("icmp")) == ""
    assert kinds == [socket.SOCK_DGRAM, socket.SOCK_RAW] * 2


@looped
async def test_without_any_permission_the_check_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(probes, "socket", with_sockets(refuse))
    with pytest.raises(CannotCheck, match="icmp checks need CAP_NET_RAW"):
        await probe(at(0), check("icmp"))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL, errno.EPERM])
@looped
async def test_what_is_wrong_here_is_not_the_backends_fault(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "here")

    monkeypatch.setattr("marchproxy.dataplane.proxy.sockets.connected_socket", fail)
    with pytest.raises(CannotCheck, match="tcp checks: "):
        await probe(at(80), check("tcp"))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EHOSTUNREACH, "no route to host"),
        (errno.ENETUNREACH, "network unreachable"),
        (errno.ECONNRESET, "reset"),
        (errno.EHOSTDOWN, "host is down"),
    ],
)
@looped
async def test_errors_in_words(number: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "there")

    monkeypatch.setattr("marchproxy.dataplane.proxy.sockets.connected_socket", fail)
    assert await probe(at(80), check("tcp")) == words
