"""Where a certificate comes from that is fetched, as it is said and kept."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from marchproxy.model.address import parse_host_name, parse_ip
from marchproxy.model.endpoint import parse_endpoint
from marchproxy.model.errors import InvalidValue
from marchproxy.model.publickey import decode

MAX_HOSTS = 100
"""Of one certificate; CAs on the internet sign no more either."""
HTTP, TLS_ALPN = "http-01", "tls-alpn-01"
"""Challenges of ACME."""
_MAIL = re.compile(r"[!-+\--?A-~]{1,64}@[A-Za-z0-9.-]{1,253}")
"""Without a comma, which would make two of it (RFC 8555, section 7.3)."""


class Source(Protocol):
    """Gives a certificate with its key."""

    issues: bool
    """Whether each time makes a new one: then it is asked only when the old one ends soon."""

    def fetch(self) -> tuple[bytes, bytes]:
        """Chain and key in PEM form. Raises `SourceFailed`."""


class Account(Protocol):
    """What an ACME source needs of the place where it is kept."""

    meeting: Path
    """The daemon's folder, where connections are brought that TLS-ALPN-01 answers."""

    def key(self) -> bytes:
        """Its private key, ECDSA on P-256, as PKCS #8 in PEM form; made when first it is asked for."""

    def expect_free(self) -> None:
        """Raises `Conflict` where what is configured listens where challenges are to be answered."""

    def begin(self) -> None:
        """An order begins now. Raises `MarchproxyError` where it may not."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a certificate comes from, as it is kept; the secret that opens it is kept sealed beside it."""

    kind: str
    """`vault`, `infisical` or `acme`."""
    url: str
    """https, or http on loopback. Of ACME its directory; of others without a path of its own, but for what is
    before `/v1` or `/api`.
    """
    options: Mapping[str, str]
    """Of `OPTIONS`; those that are empty are left out."""
    ca: str = ""
    """Certificates in PEM form that vouch for the server; empty: the system's."""
    secret: str = field(default="", repr=False)
    """What opens it; of ACME the key of an external account, which is empty where there is none."""

    def __str__(self) -> str:
        what = self.options.get("path") or self.options.get("certificate", "")
        return f"{self.kind} {self.url} {what}".strip()


OPTIONS = {
    "vault": ("path", "hosts", "ttl", "role_id", "namespace"),
    "infisical": ("project", "environment", "folder", "certificate", "key", "client_id"),
    "acme": ("hosts", "contact", "terms", "challenge", "listen", "key_id"),
}
_NEEDED = {
    "vault": ("path",),
    "infisical": ("project", "environment", "certificate", "key", "client_id"),
    "acme": ("hosts",),
}
_SUCH_AS = {
    "vault": "https://vault.example:8200",
    "infisical": "https://app.infisical.com",
    "acme": "https://ca.example/acme/directory",
}
"""Addresses, to show what one is."""
_FLAGS = {"listen": "challenge listen", "terms": "agree terms"}
"""What the command calls them, where that differs."""


def check_origin(origin: Origin) -> Origin:
    """The same, if it can be meant. Raises `InvalidValue`."""
    parts = _address(origin)
    local = parts.hostname in ("127.0.0.1", "::1", "localhost")
    plain = parts.hostname and "@" not in parts.netloc and not (parts.query or parts.fragment)
    if not plain or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise _no_address(origin)
    for name in origin.options:
        if name not in OPTIONS[origin.kind]:
            raise InvalidValue(_FLAGS.get(name, name), origin.options[name], f"nothing with {origin.kind}")
    for name in _NEEDED[origin.kind]:
        if not origin.options.get(name):
            raise InvalidValue(_FLAGS.get(name, name), None, f"one: {origin.kind} needs it")
    if origin.kind == "acme":
        return _check_acme(origin)
    if issues(origin) and not origin.options.get("hosts"):
        raise InvalidValue("hosts", None, "the hosts that the certificate is to be for")
    if not origin.secret or not origin.secret.isascii() or not origin.secret.isprintable():
        raise InvalidValue("secret", "…", "what opens it, on one line")
    return origin


def issues(origin: Origin) -> bool:
    """Whether it makes certificates: ACME, and the path of a role of Vault's PKI engine."""
    parts = origin.options.get("path", "").strip("/").split("/")
    vault = origin.kind == "vault" and len(parts) >= 3 and parts[-2] in ("issue", "sign")
    return vault or origin.kind == "acme"


def hosts_of(origin: Origin) -> tuple[str, ...]:
    """What an ACME certificate is to be for, as certificates write it, each once. Raises `InvalidValue`."""
    named = (_host(text) for text in origin.options["hosts"].split(","))
    return tuple(dict.fromkeys(named))


def is_address(host: str) -> bool:
    """Whether it is no name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _address(origin: Origin) -> SplitResult:
    try:
        parts = urlsplit(origin.url)
        _ = parts.port
    except ValueError:
        raise _no_address(origin) from None
    return parts


def _no_address(origin: Origin) -> InvalidValue:
    return InvalidValue(origin.kind, origin.url, f"an address such as {_SUCH_AS[origin.kind]}")


def _check_acme(origin: Origin) -> Origin:
    options = origin.options
    if len(hosts_of(origin)) > MAX_HOSTS:
        raise InvalidValue("hosts", f"{len(hosts_of(origin))} hosts", f"at most {MAX_HOSTS}")
    if "contact" in options and not _MAIL.fullmatch(options["contact"]):
        raise InvalidValue("contact", options["contact"], "one address of e-mail")
    challenge = options.get("challenge", HTTP)
    if challenge not in (HTTP, TLS_ALPN):
        raise InvalidValue("challenge", challenge, f"{HTTP} or {TLS_ALPN}")
    if "listen" in options:
        parse_endpoint(options["listen"], field="challenge listen")
    elif challenge == HTTP:
        expected = f"an address and port, such as --challenge-listen '*:80': {HTTP} needs it"
        raise InvalidValue("challenge listen", None, expected)
    if bool(options.get("key_id")) is not bool(origin.secret):
        raise InvalidValue("key id", options.get("key_id"), "one together with --secret-file, or neither")
    if not options.get("key_id", "").isprintable():
        raise InvalidValue("key id", options["key_id"], "printable characters")
    try:
        decode(origin.secret.rstrip("="))
    except ValueError:
        raise InvalidValue("secret", "…", "a key in base64url, as the CA gives it") from None
    return origin


def _host(text: str) -> str:
    if is_address(text):
        return str(parse_ip(text, field="hosts"))
    if text.startswith("*."):
        expected = "names and addresses: the challenges that are answered here are none for wildcards"
        raise InvalidValue("hosts", text, expected)
    return parse_host_name(text, field="hosts").name
