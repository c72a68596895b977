"""Certificates from Vault and Infisical: small servers here, which answer as these are documented to."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.certificates import authority, signed
from tests.cli.console import Console

TOKEN, SECRET_ID, CLIENT_SECRET = "hvs.token-of-vault", "secret-id-of-a-role", "client-secret-of-infisical"


class Stores:
    """Both at one address."""

    def __init__(self) -> None:
        self.material = signed("www.example", "10.1.0.1")
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.broken = False
        self.url = ""

    def answer(
        self, method: str, target: str, fields: dict[str, str], body: dict[str, Any]
    ) -> tuple[int, Any]:
        """Status and document."""
        parts = urlsplit(target)
        self.asked.append((method, parts.path, body))
        leaf, key = self.material.chain, self.material.key.decode()
        opened = fields.get("x-vault-token") in (TOKEN, "token-of-approle")
        if self.broken:
            return 503, {"errors": ["Vault is sealed"]}
        match method, parts.path:
            case "POST", "/v1/auth/approle/login":
                good = body == {"role_id": "role", "secret_id": SECRET_ID}
                return (
                    (200, {"auth": {"client_token": "token-of-approle"}})
                    if good
                    else (400, {"errors": ["no"]})
                )
            case "POST", "/v1/pki/issue/web" if opened:
                data = {"certificate": leaf, "issuing_ca": authority().chain, "ca_chain": [authority().chain]}
                return 200, {"data": {**data, "private_key": key}}
            case "GET", "/v1/secret/data/tls/web" if opened:
                return 200, {"data": {"data": {"certificate": leaf, "private_key": key}, "metadata": {}}}
            case "POST", "/api/v1/auth/universal-auth/login":
                good = body == {"clientId": "client", "clientSecret": CLIENT_SECRET}
                return (200, {"accessToken": "a.b.c"}) if good else (401, {"message": "Invalid credentials"})
            case "GET", "/api/v3/secrets/raw/TLS_CERT" | "/api/v3/secrets/raw/TLS_KEY":
                query = parse_qs(parts.query)
                wanted = {"workspaceId": ["p1"], "environment": ["prod"], "secretPath": ["/"]}
                if query != wanted or fields.get("authorization") != "Bearer a.b.c":
                    return 404, {"message": "not found"}
                return 200, {"secret": {"secretValue": leaf if parts.path.endswith("CERT") else key}}
        return 403, {"errors": ["permission denied"]}


@pytest.fixture(name="stores")
def _stores() -> Iterator[Stores]:
    with listening(Stores()) as stores:
        yield stores


@contextmanager
def listening(stores: Stores) -> Iterator[Stores]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(size)) if size else {}
            fields = {name.lower(): value for name, value in self.headers.items()}
            status, document = stores.answer(self.command, self.path, fields, body)
            raw = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = _serve

        def log_message(self, *_: object) -> None:
            """Not here."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stores.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield stores
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def words(stores: Stores, folder: Path, kind: str) -> tuple[str, ...]:
    """What says the source, with its secret in a file."""
    secret = folder / kind
    secret.write_text({"role": SECRET_ID, "infisical": CLIENT_SECRET}.get(kind, TOKEN) + "\n")
    vault = ("--vault", stores.url, "--secret-file", str(secret))
    return {
        "pki": (*vault, "--path", "pki/issue/web", "--hosts", "www.example,10.1.0.1", "--ttl", "720h"),
        "kv": (*vault, "--path", "secret/data/tls/web"),
        "role": (*vault, "--path", "secret/data/tls/web", "--role-id", "role"),
        "infisical": (
            *("--infisical", stores.url, "--project", "p1", "--environment", "prod", "--client-id", "client"),
            *("--certificate-secret", "TLS_CERT", "--key-secret", "TLS_KEY", "--secret-file", str(secret)),
        ),
    }[kind]


def fingerprint(site: Console, name: str = "web") -> str:
    found: str = site.ok("cert", "show", name, "--output", "json").json["fingerprint"]
    return found


@pytest.mark.parametrize("kind", ["pki", "kv", "role", "infisical"])
def test_it_is_fetched_at_once_and_no_secret_is_seen(
    site: Console, stores: Stores, tmp_path: Path, kind: str
) -> None:
    made = site.ok("cert", "source", "web", *words(stores, tmp_path, kind))
    assert fingerprint(site) == stores.material.facts.fingerprint
    everything = made.out + made.err + site.ok("export").out + site.ok("cert", "list", "--output", "json").out
    kept = b"".join(path.read_bytes() for path in (site.folder / "state").iterdir() if path.is_file())
    for secret in (TOKEN, SECRET_ID, CLIENT_SECRET):
        assert secret not in everything
        assert secret.encode() not in kept
    if kind == "pki":
        [(_, _, body)] = stores.asked
        assert body == {
            "common_name": "www.example",
            "alt_names": "www.example",
            "ip_sans": "10.1.0.1",
            "ttl": "720h",
        }


@pytest.mark.parametrize("kind", ["kv", "infisical"])
def test_what_is_another_one_there_is_taken_over(
    site: Console, stores: Stores, tmp_path: Path, kind: str
) -> None:
    site.ok("cert", "source", "web", *words(stores, tmp_path, kind))
    assert "another one" not in site.ok("cert", "pull").err
    stores.material = signed("www.example", "new.example")
    assert "certificate web of cluster default is another one now" in site.ok("cert", "pull").err
    assert fingerprint(site) == stores.material.facts.fingerprint


def test_what_is_issued_is_asked_for_in_the_last_third_of_its_life(
    site: Console, stores: Stores, tmp_path: Path
) -> None:
    site.ok("cert", "source", "web", *words(stores, tmp_path, "pki"))
    site.ok("cert", "pull")
    assert len(stores.asked) == 1
    now = datetime.now(UTC).replace(microsecond=0)
    stores.material = signed("www.example", days=30, now=now - timedelta(days=21))
    site.ok("cert", "pull", "web", "--now")
    assert len(stores.asked) == 2
    stores.material = signed("www.example", days=30)
    site.ok("cert", "pull")
    assert fingerprint(site) == stores.material.facts.fingerprint
    assert len(stores.asked) == 3


def test_what_cannot_be_fetched_stays_as_it_is_and_is_said(
    site: Console, stores: Stores, tmp_path: Path
) -> None:
    site.ok("cert", "source", "web", *words(stores, tmp_path, "kv"))
    before = fingerprint(site)
    stores.broken = True
    failed = site("cert", "pull")
    assert failed.code == 1
    assert "HTTP 503: Vault is sealed" in failed.err
    assert TOKEN not in failed.err
    stores.broken = False
    stores.material = signed("www.example")
    good = stores.material
    stores.material = type(good)(good.facts, good.chain, signed("other.example").key)
    assert site("cert", "pull").code == 1
    assert fingerprint(site) == before
    site.ok("cert", "source", "web", "--forget")
    site.ok("cert", "pull")
    assert fingerprint(site) == before
    assert site("cert", "source", "web", "--forget").code == 4
    assert site("cert", "pull", "web").code == 3


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--vault", "http://vault.example:8200"), 5),
        (("--vault", "https://user:word@vault.example"), 5),
        (("--path", ""), 5),
        (("--hosts", ""), 5),
        (("--project", "p1"), 5),
        (("--infisical", "https://app.infisical.com"), 2),
        (("--secret-file", "/nowhere"), 3),
    ],
)
def test_what_cannot_be_meant_changes_nothing(
    site: Console, stores: Stores, tmp_path: Path, more: tuple[str, ...], code: int
) -> None:
    refused = site("cert", "source", "web", *words(stores, tmp_path, "pki"), *more)
    assert refused.code == code
    assert "Traceback" not in refused.err
    assert site.ok("cert", "list", "--output", "json").json == []
    assert not stores.asked


def test_a_wrong_secret_adds_nothing(site: Console, stores: Stores, tmp_path: Path) -> None:
    said = words(stores, tmp_path, "kv")
    (tmp_path / "kv").write_text("another")
    refused = site("cert", "source", "web", *said)
    assert refused.code == 1
    assert "permission denied" in refused.err
    assert site.ok("cert", "list", "--output", "json").json == []
