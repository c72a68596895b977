"""Where a cluster's logs go: addresses of syslog servers, of IPFIX collectors, and of log platforms."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import urlsplit

from marchproxy.model.address import IPAddress, parse_host_name, parse_ip
from marchproxy.model.errors import InvalidValue
from marchproxy.model.ports import parse_port

SYSLOG = ("udp", "tcp", "tls")
"""RFC 5426; RFC 6587 with octet counting; RFC 5425."""
IPFIX = ("udp", "tcp")
"""RFC 7011 section 10."""
EXAMPLE_ENTERPRISE = 32473
"""The enterprise number that IANA keeps for examples (RFC 5612)."""
MAX_CERTIFICATES = 64 * 1024
"""Characters of PEM."""


@dataclass(frozen=True, slots=True)
class Collector:
    """A place that takes logs."""

    transport: str
    """`udp`, `tcp` or `tls`."""
    host: IPAddress | str
    """A host name is resolved whenever the place is connected to."""
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if isinstance(self.host, IPv6Address) else self.host
        return f"{self.transport}://{host}:{self.port}"


def parse_syslog(text: str, *, field: str = "syslog") -> Collector:
    """Read `udp://HOST:PORT`, `tcp://HOST:PORT` or `tls://HOST:PORT`; an IPv6 address in brackets."""
    return _parse(text, field, SYSLOG)


def parse_ipfix(text: str, *, field: str = "ipfix") -> Collector:
    """Read `udp://HOST:PORT` or `tcp://HOST:PORT`."""
    return _parse(text, field, IPFIX)


def parse_log_url(text: str, *, field: str = "log_http") -> str:
    """Read the address of a log platform: http or https, without user, password or fragment."""
    said = text.strip()
    try:
        parts = urlsplit(said)
        named = parts.hostname and parts.port != 0 and said.isascii() and said.isprintable()
    except ValueError:
        parts, named = urlsplit(""), None
    fits = named and " " not in said and len(said) <= 1024 and "@" not in parts.netloc and "#" not in said
    if not fits or parts.scheme not in ("http", "https"):
        expected = "an address such as https://logs.example/ingest; a token goes into --log-http-token"
        raise InvalidValue(field, text, expected)
    return said


def parse_certificates(text: str, *, field: str = "syslog_ca") -> str:
    """Read certificates in PEM form; what stands around them is left out, and a private key is refused."""
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import load_pem_x509_certificates

    if "PRIVATE KEY-----" in text:
        raise InvalidValue(field, "…", "certificates, and this is a private key: keep it where it is used")
    if not text.strip():
        return ""
    try:
        found = load_pem_x509_certificates(text.encode())
    except ValueError:
        found = []
    if not found or len(text) > MAX_CERTIFICATES:
        expected = f"certificates in PEM form, at most {MAX_CERTIFICATES} characters"
        raise InvalidValue(field, text.strip()[:40], expected)
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in found)


def _parse(text: str, field: str, transports: Sequence[str]) -> Collector:
    expected = " or ".join(f"{transport}://HOST:PORT" for transport in transports)
    transport, found, rest = text.strip().partition("://")
    host, colon, port = rest.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not found or transport.lower() not in transports or not (colon and host) or (":" in host) != bracketed:
        raise InvalidValue(field, text, expected)
    try:
        return Collector(transport.lower(), _host(host.strip("[]"), field), parse_port(port, field=field))
    except InvalidValue as error:
        raise InvalidValue(field, text, f"{expected} ({error.expected})") from error


def _host(text: str, field: str) -> IPAddress | str:
    if ":" in text or text.replace(".", "").isdigit():
        return parse_ip(text, field=field)
    return parse_host_name(text, field=field).name
