"""Key sets come from a server of our own, over HTTP and HTTPS, and from servers that do not mean well."""

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from marchproxy.dataplane.credentials import jwks
from marchproxy.dataplane.credentials.jwks import JwksFailed, fetch
from tests.dataplane.credentials.jwts import ec_key, ed_key, public, rsa_key
from tests.dataplane.loops import looped

KEYS = (public(rsa_key(), "r"), public(ec_key(), "e"), public(ed_key()))
SET = json.dumps({"keys": [key.document() for key in KEYS]}).encode()


def answer(body: bytes, *, status: str = "200 OK", head: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


@asynccontextmanager
async def server(
    said: bytes, *, tls: ssl.SSLContext | None = None, stays: bool = False
) -> AsyncGenerator[tuple[str, list[bytes]]]:
    """Says this to whoever has asked; yields its address and what it was asked."""
    asked: list[bytes] = []
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(said)
            await writer.drain()
            if stays:
                await done.wait()
        except (OSError, asyncio.IncompleteReadError):
            """The client went away, as some tests have it."""
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as listening:
        port = listening.sockets[0].getsockname()[1]
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{port}/keys.json?a=b", asked
        finally:
            done.set()


def certified(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server with a certificate for 127.0.0.1, and of a client that trusts it."""
    key, name = ec_key(), x509.Name([])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
        .add_extension(address, critical=True)
        .sign(key, SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "both.pem").write_bytes(certificate.public_bytes(Encoding.PEM) + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context, ssl.create_default_context(cadata=certificate.public_bytes(Encoding.PEM).decode())


@looped
async def test_a_set_is_fetched_with_one_question() -> None:
    async with server(answer(SET)) as (url, asked):
        assert set(await fetch(url)) == set(KEYS)
    [question] = asked
    lines = question.decode().split("\r\n")
    assert lines[0] == "GET /keys.json?a=b HTTP/1.1"
    assert f"Host: {url.split('/')[2]}" in lines


@looped
async def test_chunks_and_answers_without_length() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(SET), SET)
    for said in (chunked, b"HTTP/1.0 200 OK\r\n\r\n" + SET):
        async with server(said) as (url, _):
            assert set(await fetch(url)) == set(KEYS)


@looped
async def test_over_tls_from_whom_is_trusted_only(tmp_path: Path) -> None:
    own, trusting = certified(tmp_path)
    async with server(answer(SET), tls=own) as (url, _):
        assert set(await fetch(url, tls=trusting)) == set(KEYS)
        with pytest.raises(JwksFailed, match=r"(?i)certificate"):
            await fetch(url)
        with pytest.raises(JwksFailed, match=r"(?i)certificate|mismatch"):
            await fetch(url.replace("127.0.0.1", "localhost"), tls=trusting)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"\xff" * 100,
        answer(SET, status="404 Not Found"),
        answer(SET, status="302 Found", head="Location: https://evil.example/\r\n"),
        answer(SET)[:-10],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + SET,
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n" + SET,
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000 + b"\r\n\r\n" + SET,
        answer(b""),
        answer(b"\xff"),
        answer(b"[" * 100_000),
        answer(b'{"keys": {}}'),
        answer(b'{"keys": []}'),
        answer(b'{"keys": [7]}'),
        answer(b'{"keys": [{"kty": "oct", "k": "AAAA"}]}'),
        answer(json.dumps({"keys": [KEYS[0].document() | {"d": "AAAA"}]}).encode()),
        answer(b" " * jwks.MOST_BYTES + SET),
    ],
)
def test_what_is_no_key_set(said: bytes) -> None:
    @looped
    async def run() -> None:
        async with server(said) as (url, _):
            with pytest.raises(JwksFailed, match=url.split("?")[0]):
                await fetch(url)

    run()


@looped
async def test_nobody_there() -> None:
    async with server(b"") as (url, _):
        """Its port is free behind this."""
    with pytest.raises(JwksFailed, match=r"(?i)connect"):
        await fetch(url)


def test_a_server_that_takes_its_time_has_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "DEADLINE", 0.1)

    @looped
    async def run() -> None:
        for said in (b"", answer(SET)):
            async with server(said, stays=True) as (url, _):
                with pytest.raises(JwksFailed, match="no answer within"):
                    await fetch(url)

    run()


@looped
async def test_keys_of_other_kinds_are_left_out() -> None:
    others = [
        {"kty": "oct", "k": "AAAA"},
        {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"},
        KEYS[0].document() | {"use": "enc"},
        KEYS[0].document() | {"alg": "PS256", "kid": "ps"},
    ]
    async with server(answer(json.dumps({"keys": [*others, KEYS[1].document()]}).encode())) as (url, _):
        assert await fetch(url) == (KEYS[1],)
