"""What is asked of Vault and Infisical, and what of their answers is believed."""

import socket
import threading
from contextlib import suppress
from typing import Any

import pytest

from marchproxy.client.asking import SourceFailed
from marchproxy.client.certorigin import Origin, check_origin
from marchproxy.client.certsources import source_of
from marchproxy.model.errors import InvalidValue
from tests.certificates import authority, signed


def vault(**options: str) -> Origin:
    return Origin("vault", "https://vault.example", options, secret="s.token")


@pytest.mark.parametrize(
    ("path", "issues"),
    [
        ("pki/issue/web", True),
        ("/corp/pki/issue/web/", True),
        ("secret/data/web", False),
        ("secret/issue", False),
        ("issue/web", False),
    ],
)
def test_what_makes_certificates_is_told_by_its_path(path: str, issues: bool) -> None:
    origin = check_origin(vault(path=path, hosts="a.example"))
    assert source_of(origin).issues is issues


@pytest.mark.parametrize(
    "origin",
    [
        Origin("vault", "ftp://vault.example", {"path": "secret/data/x"}, secret="t"),
        Origin("vault", "http://vault.example", {"path": "secret/data/x"}, secret="t"),
        Origin("vault", "https://vault.example/?x", {"path": "secret/data/x"}, secret="t"),
        Origin("vault", "https://vault.example", {}, secret="t"),
        Origin("vault", "https://vault.example", {"path": "pki/issue/web"}, secret="t"),
        Origin("vault", "https://vault.example", {"path": "secret/data/x"}, secret=""),
        Origin("vault", "https://vault.example", {"path": "secret/data/x"}, secret="a\nb"),
        Origin("infisical", "https://x.example", {"project": "p", "environment": "e"}, secret="t"),
    ],
)
def test_what_cannot_be_meant(origin: Origin) -> None:
    with pytest.raises(InvalidValue):
        check_origin(origin)


def answered(raw: bytes, **options: str) -> tuple[bytes, bytes]:
    """What comes of this answer to the only request."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            # Who has read enough leaves, and what is still sent then is answered by a reset.
            with connection, suppress(ConnectionError):
                connection.recv(65536)
                connection.sendall(raw)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.getsockname()[1]}"
            return source_of(Origin("vault", url, options, secret="s.token")).fetch()
        finally:
            thread.join()


def document(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-nonsense\r\n",
        document("200 OK", "[]"),
        document("200 OK", "{}"),
        document("200 OK", "[" * 100_000),
        document("200 OK", '{"data": {"certificate": 7}}'),
        document("302 Found", '{"data": {"certificate": "x", "private_key": "y"}}'),
        document("403 Forbidden", '{"errors": ["permission denied"]}'),
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b" " * 2_000_000,
    ],
)
def test_what_is_no_answer_is_said_without_the_secret(raw: bytes) -> None:
    with pytest.raises(SourceFailed) as raised:
        answered(raw, path="secret/data/web")
    assert "s.token" not in str(raised.value)


def test_nobody_listens() -> None:
    with pytest.raises(SourceFailed, match="refused"):
        source_of(Origin("vault", "http://127.0.0.1:1", {"path": "secret/data/web"}, secret="t")).fetch()


def test_a_chain_has_no_root_and_nothing_twice() -> None:
    import json

    made = signed("a.example")
    data: dict[str, Any] = {"certificate": made.chain, "private_key": made.key.decode()}
    data |= {"ca_chain": [authority().chain, made.chain], "issuing_ca": authority().chain}
    raw = document("200 OK", json.dumps({"data": data}))
    chain, key = answered(raw, path="pki/issue/web", hosts="a.example")
    assert chain.decode().count("BEGIN CERTIFICATE") == made.chain.count("BEGIN CERTIFICATE") == 1
    assert key == made.key
