"""Who a client is by its certificate: what it says, whether a mapping takes it, and what a backend is told.

The chain, the time and revocation are OpenSSL's to check, in the handshake (`contexts.asking`).
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from marchproxy.model.clientnames import name_fits
from marchproxy.policy.plan import ClientTls

if TYPE_CHECKING:
    from cryptography import x509

_PLAIN = " !#$&'()*+,/:;=?@[]^_`{|}~\"<>\\.-"
"""What stands in the value of a field as it is; all else is escaped by percent, the percent sign too."""
_LONGEST = 4096
_BEGIN = "-----BEGIN X509 CRL-----"


@dataclass(frozen=True, slots=True)
class Peer:
    """A client that has proved to own its certificate."""

    subject: str
    """As RFC 4514 writes it."""
    names: tuple[tuple[str, str], ...]
    """Kind and name, of `clientnames.KINDS`."""
    serial: str
    """In hexadecimal."""
    fingerprint: str
    """SHA-256 in hexadecimal."""
    until: float
    """When the certificate ends, in seconds since the epoch."""

    def fits(self, patterns: Collection[str]) -> bool:
        """Whether one of its names is what one of the patterns says; without patterns whoever it is."""
        return not patterns or any(name_fits(each, *name) for each in patterns for name in self.names)

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """What a backend is told."""
        alternative = [f"{kind}:{name}" for kind, name in self.names if kind not in _SUBJECT.values()]
        told = {
            "subject": self.subject,
            "names": ", ".join(alternative),
            "serial": self.serial,
            "fingerprint": self.fingerprint,
        }
        return tuple(
            (f"x-marchproxy-client-{name}", quote(value[:_LONGEST], safe=_PLAIN))
            for name, value in told.items()
            if value
        )


@dataclass(frozen=True, slots=True)
class Shown:
    """What a connection was asked for in its handshake, and what it showed."""

    asked: ClientTls | None = None
    """None: for nothing."""
    peer: Peer | None = None
    """None: it showed no certificate."""
    version: str = ""
    """Of TLS, as OpenSSL names it; empty: none was spoken."""


NOTHING_SHOWN = Shown()


def read_peer(certificate: bytes | None, now: float | None = None) -> Peer | None:
    """Read a certificate in DER form that a handshake took; None where there is none, or its time is over:
    a session that is resumed is not checked again. Raises nothing: what cannot be read is none.
    """
    from cryptography import x509

    if not certificate:
        return None
    try:
        read = x509.load_der_x509_certificate(certificate)
        peer = _read(read)
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return None
    return peer if peer.until > (time.time() if now is None else now) else None


def lapsed(crl: str, now: float | None = None) -> bool:
    """Whether one of these revocation lists (PEM) has run out: a handshake refuses that, a session that is
    resumed is not checked again.
    """
    return bool(crl) and _lists_end(crl) <= (time.time() if now is None else now)


@lru_cache(maxsize=64)
def _lists_end(crl: str) -> float:
    from cryptography import x509

    ends = [
        read.next_update_utc
        for each in crl.split(_BEGIN)[1:]
        for read in [x509.load_pem_x509_crl((_BEGIN + each).encode("ascii"))]
    ]
    return min((each.timestamp() for each in ends if each is not None), default=float("inf"))


_SUBJECT = {"2.5.4.3": "cn", "2.5.4.11": "ou", "2.5.4.10": "o"}
"""Kinds of attributes of the subject (RFC 4519)."""


def _read(certificate: "x509.Certificate") -> Peer:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    names = [
        (_SUBJECT[each.oid.dotted_string], str(each.value))
        for each in certificate.subject
        if each.oid.dotted_string in _SUBJECT
    ]
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        alternative = x509.SubjectAlternativeName([])
    kinds = (("dns", x509.DNSName), ("email", x509.RFC822Name), ("uri", x509.UniformResourceIdentifier))
    for kind, of in kinds:
        names += [(kind, str(name)) for name in alternative.get_values_for_type(of)]
    names += [("ip", str(name)) for name in alternative.get_values_for_type(x509.IPAddress)]
    return Peer(
        subject=certificate.subject.rfc4514_string(),
        names=tuple(names),
        serial=f"{certificate.serial_number:x}",
        fingerprint=certificate.fingerprint(SHA256()).hex(),
        until=certificate.not_valid_after_utc.timestamp(),
    )
