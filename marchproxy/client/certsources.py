"""Where certificates come from beside files: HashiCorp Vault and Infisical, behind one small interface.

Each is asked by a few requests of JSON; no redirect is followed, for what is trusted is the address given.
"""

import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

from marchproxy.model.errors import InvalidValue, MarchproxyError

PATIENCE = 10.0
"""Seconds for each step of a request."""
_LONGEST = 1024 * 1024

type Document = dict[str, Any]


class SourceFailed(MarchproxyError):
    """No certificate came; the message says why, and holds no secret."""


class Source(Protocol):
    """Gives a certificate with its key."""

    issues: bool
    """Whether each time makes a new one: then it is asked only when the old one ends soon."""

    def fetch(self) -> tuple[bytes, bytes]:
        """Chain and key in PEM form. Raises `SourceFailed`."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a certificate comes from, as it is kept; the secret that opens it is kept sealed beside it."""

    kind: str
    """`vault` or `infisical`."""
    url: str
    """https, or http on loopback; without a path of its own, but for what is before `/v1` or `/api`."""
    options: Mapping[str, str]
    """Of `OPTIONS`; those that are empty are left out."""
    ca: str = ""
    """Certificates in PEM form that vouch for the server; empty: the system's."""
    secret: str = field(default="", repr=False)

    def __str__(self) -> str:
        what = self.options.get("path") or self.options.get("certificate", "")
        return f"{self.kind} {self.url} {what}".strip()


OPTIONS = {
    "vault": ("path", "hosts", "ttl", "role_id", "namespace"),
    "infisical": ("project", "environment", "folder", "certificate", "key", "client_id"),
}
_NEEDED = {
    "vault": ("path",),
    "infisical": ("project", "environment", "certificate", "key", "client_id"),
}


def check_origin(origin: Origin) -> Origin:
    """The same, if it can be meant. Raises `InvalidValue`."""
    parts = urlsplit(origin.url)
    local = parts.hostname in ("127.0.0.1", "::1", "localhost")
    plain = parts.hostname and "@" not in parts.netloc and not (parts.query or parts.fragment)
    if not plain or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise InvalidValue("url", origin.url, "an address such as https://vault.example:8200")
    for name in origin.options:
        if name not in OPTIONS[origin.kind]:
            raise InvalidValue(name, origin.options[name], f"nothing with {origin.kind}")
    for name in _NEEDED[origin.kind]:
        if not origin.options.get(name):
            raise InvalidValue(name, None, f"one: {origin.kind} needs it")
    if _issues(origin) and not origin.options.get("hosts"):
        raise InvalidValue("hosts", None, "the hosts that the certificate is to be for")
    if not origin.secret or not origin.secret.isascii() or not origin.secret.isprintable():
        raise InvalidValue("secret", "…", "what opens it, on one line")
    return origin


def source_of(origin: Origin) -> Source:
    """What speaks to it."""
    server = _Server(origin.url, origin.ca)
    return _Vault(server, origin) if origin.kind == "vault" else _Infisical(server, origin)


def _issues(origin: Origin) -> bool:
    """Whether a path is that of a role of the PKI engine, which makes certificates."""
    parts = origin.options.get("path", "").strip("/").split("/")
    return origin.kind == "vault" and len(parts) >= 3 and parts[-2] in ("issue", "sign")


class _Vault:
    """The HTTP API, version 1: `pki/issue/ROLE` of the PKI engine, or a secret of the KV engine (2 or 1)."""

    def __init__(self, server: "_Server", origin: Origin) -> None:
        self.issues = _issues(origin)
        self._server = server
        self._origin = origin

    def fetch(self) -> tuple[bytes, bytes]:
        """See `Source`."""
        options = self._origin.options
        path = "/v1/" + quote(options["path"].strip("/"))
        fields = {"X-Vault-Token": self._token()}
        if "namespace" in options:
            fields["X-Vault-Namespace"] = options["namespace"]
        if not self.issues:
            data = _object(self._server.ask("GET", path, fields), "data")
            held = data.get("data", data)
            return _pem(held, "certificate", "chain"), _pem(held, "private_key", "key")
        hosts = options["hosts"].split(",")
        names = [host for host in hosts if not _is_address(host)]
        body = {
            "common_name": hosts[0],
            "alt_names": ",".join(names),
            "ip_sans": ",".join(host for host in hosts if _is_address(host)),
            **({"ttl": options["ttl"]} if "ttl" in options else {}),
        }
        data = _object(self._server.ask("POST", path, fields, body), "data")
        chain = data.get("ca_chain") or [data.get("issuing_ca", "")]
        certificates = [_pem(data, "certificate"), *(str(each).encode() for each in chain if each)]
        return b"\n".join(_without_root(certificates)), _pem(data, "private_key")

    def _token(self) -> str:
        role = self._origin.options.get("role_id")
        if role is None:
            return self._origin.secret
        body = {"role_id": role, "secret_id": self._origin.secret}
        found = _object(self._server.ask("POST", "/v1/auth/approle/login", {}, body), "auth")
        return _text(found, "client_token")


class _Infisical:
    """Two secrets of a project, opened by Universal Auth (API v1 for the login, v3 for secrets)."""

    issues = False

    def __init__(self, server: "_Server", origin: Origin) -> None:
        self._server = server
        self._origin = origin

    def fetch(self) -> tuple[bytes, bytes]:
        """See `Source`."""
        options = self._origin.options
        body = {"clientId": options["client_id"], "clientSecret": self._origin.secret}
        login = self._server.ask("POST", "/api/v1/auth/universal-auth/login", {}, body)
        fields = {"Authorization": f"Bearer {_text(login, 'accessToken')}"}
        return self._read(options["certificate"], fields), self._read(options["key"], fields)

    def _read(self, name: str, fields: Mapping[str, str]) -> bytes:
        options = self._origin.options
        query = {
            "workspaceId": options["project"],
            "environment": options["environment"],
            "secretPath": options.get("folder", "/"),
        }
        target = f"/api/v3/secrets/raw/{quote(name, safe='')}?{urlencode(query)}"
        return _pem(_object(self._server.ask("GET", target, fields), "secret"), "secretValue")


class _Server:
    """Asks one server, a connection for each request."""

    def __init__(self, url: str, ca: str) -> None:
        self._parts = urlsplit(url)
        self._ca = ca
        self._shown = f"{self._parts.scheme}://{self._parts.netloc}"

    def ask(
        self, method: str, target: str, fields: Mapping[str, str], body: Mapping[str, str] | None = None
    ) -> Document:
        """The object that is answered. Raises `SourceFailed`."""
        connection = self._connection()
        try:
            encoded = json.dumps(body).encode() if body is not None else None
            more = {"Content-Type": "application/json"} if body is not None else {}
            headers = {"Accept": "application/json", "User-Agent": "marchproxy", **more, **fields}
            connection.request(method, self._parts.path.rstrip("/") + target, encoded, headers)
            answer = connection.getresponse()
            raw = answer.read(_LONGEST + 1)
        except (OSError, HTTPException) as error:
            raise SourceFailed(f"{self._shown}: {_why(error)}") from None
        finally:
            connection.close()
        if answer.status != 200:
            raise SourceFailed(f"{self._shown}{target.partition('?')[0]}: HTTP {answer.status}{_said(raw)}")
        try:
            document = json.loads(raw) if len(raw) <= _LONGEST else None
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise SourceFailed(f"{self._shown}: the answer is no object of JSON")
        return document

    def _connection(self) -> HTTPConnection:
        host = self._parts.hostname or ""
        if self._parts.scheme == "http":
            return HTTPConnection(host, self._parts.port, timeout=PATIENCE)
        context = ssl.create_default_context(cadata=self._ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return HTTPSConnection(host, self._parts.port, timeout=PATIENCE, context=context)


def _object(document: Document, name: str) -> Document:
    found = document.get(name)
    if not isinstance(found, dict):
        raise SourceFailed(f"the answer has no {name!r}")
    return found


def _text(document: Document, *names: str) -> str:
    for name in names:
        found = document.get(name)
        if isinstance(found, str) and found:
            return found
    raise SourceFailed(f"the answer has no {names[0]!r}")


def _pem(document: Document, *names: str) -> bytes:
    return _text(document, *names).encode("ascii", "replace")


def _without_root(chain: Sequence[bytes]) -> Sequence[bytes]:
    """Clients have the root, and a chain that repeats a certificate is refused."""
    from cryptography import x509

    kept: list[bytes] = []
    for number, each in enumerate(chain):
        try:
            read = x509.load_pem_x509_certificate(each)
        except ValueError:
            raise SourceFailed("the answer holds what is no certificate") from None
        if each.strip() not in kept and not (number and read.issuer == read.subject):
            kept.append(each.strip())
    return kept


def _is_address(host: str) -> bool:
    from ipaddress import ip_address

    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _said(raw: bytes) -> str:
    """What a server says about its refusal, if it is short and plain."""
    try:
        document = json.loads(raw[:4096])
        said = document.get("errors") or document.get("message") or ""
    except (ValueError, AttributeError, RecursionError):
        return ""
    text = "; ".join(map(str, said)) if isinstance(said, list) else str(said)
    return f": {text[:200]}" if text and text.isprintable() else ""


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE:.0f} s"
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
