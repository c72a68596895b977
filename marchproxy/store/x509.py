"""Certificates and keys as operators bring them: read, and checked against each other.

Everything that needs `cryptography.x509` is here and in `authority`, and is imported when it is called:
whoever only serves certificates has their facts in columns.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from marchproxy.model.certificate import Facts, Purpose
from marchproxy.model.errors import InvalidValue

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate, ObjectIdentifier

LEAST_RSA = 2048
"""Bits; fewer are refused by the TLS library, too."""
LONGEST_CHAIN = 10
_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.+?-----END \1-----", re.DOTALL)
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Material:
    """A chain and its key, which fit."""

    facts: Facts
    chain: str
    """PEM, the leaf first."""
    key: bytes = field(repr=False)
    """PKCS #8 in PEM, in the clear."""


def read_material(certificate: bytes, key: bytes, now: datetime) -> Material:
    """Read a chain, the leaf first, and the leaf's key, both PEM; each may hold other things beside.

    Raises `InvalidValue` for what is none, does not fit, is in the wrong order, or has expired.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.x509 import DuplicateExtension

    chain, private = _chain(certificate), _private(key)
    try:
        _check_key(chain, private)
        _check_order(chain)
        for each in chain:
            if each.not_valid_after_utc <= now:
                said = f"{_named(each)}, which expired at {each.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
                raise InvalidValue("certificate", said, "certificates that are still valid")
        _check_purpose(chain[0])
        return material(chain, private)
    except (DuplicateExtension, UnsupportedAlgorithm, ValueError) as error:
        # What the library reads only when it is asked for.
        raise InvalidValue("certificate", str(error), "certificates that can be read in full") from error


def material(chain: Sequence["Certificate"], key: "PrivateKeyTypes") -> Material:
    """The same of what needs no check."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    leaf = chain[0]
    facts = Facts(
        hosts=_hosts(leaf),
        subject=_named(leaf),
        issuer=_short(leaf.issuer.rfc4514_string()),
        kind=_kind(leaf.public_key()),
        fingerprint=leaf.fingerprint(SHA256()).hex(),
        begins=max(each.not_valid_before_utc for each in chain),
        expires=min(each.not_valid_after_utc for each in chain),
    )
    pem = "".join(each.public_bytes(Encoding.PEM).decode("ascii") for each in chain)
    return Material(facts, pem, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _chain(data: bytes) -> list["Certificate"]:
    from cryptography.x509 import load_pem_x509_certificates

    try:
        chain = load_pem_x509_certificates(data)
    except ValueError:
        expected = "certificates in PEM form (-----BEGIN CERTIFICATE-----), the leaf first"
        raise InvalidValue("certificate", "…", expected) from None
    if len(chain) > LONGEST_CHAIN:
        raise InvalidValue("certificate", f"{len(chain)} certificates", f"a chain of at most {LONGEST_CHAIN}")
    return chain


def _private(data: bytes) -> "PrivateKeyTypes":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    found = _KEY.search(data)
    try:
        key = load_pem_private_key(found[0] if found else b"", None)
    except TypeError:
        expected = "a key without a passphrase: openssl pkey -in FILE writes one"
        raise InvalidValue("key", "an encrypted key", expected) from None
    except (ValueError, UnsupportedAlgorithm):
        expected = "a private key in PEM form (-----BEGIN PRIVATE KEY-----)"
        raise InvalidValue("key", "…", expected) from None
    known = isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey)
    weak = isinstance(key, rsa.RSAPrivateKey) and key.key_size < LEAST_RSA
    other = isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name not in _CURVES
    if not known or weak or other:
        expected = f"RSA of {LEAST_RSA} bits at least, P-256, P-384, P-521 or Ed25519"
        said = _kind(key.public_key()) if known else type(key).__name__
        raise InvalidValue("key", said, expected)
    return key


def _check_key(chain: Sequence["Certificate"], key: "PrivateKeyTypes") -> None:
    own = key.public_key()
    if chain[0].public_key() == own:
        return
    place = next((place for place, each in enumerate(chain, 1) if each.public_key() == own), 0)
    if place:
        said = f"its certificate is number {place} of the file"
        raise InvalidValue("certificate", said, "the leaf first, then who signed it, and so on")
    raise InvalidValue("key", "…", f"the private key of {_named(chain[0])}; this one belongs to another")


def _check_order(chain: Sequence["Certificate"]) -> None:
    from cryptography.exceptions import InvalidSignature

    for place, (lower, upper) in enumerate(pairwise(chain), 1):
        try:
            lower.verify_directly_issued_by(upper)
        except (ValueError, TypeError, InvalidSignature):
            said = f"number {place + 1}, {_named(upper)}, did not sign number {place}, {_named(lower)}"
            expected = "the leaf first, then who signed it, and so on, and nothing else"
            raise InvalidValue("certificate", said, expected) from None


def _check_purpose(leaf: "Certificate") -> None:
    if not (_fits(leaf, Purpose.SERVERS) or _fits(leaf, Purpose.CLIENTS)):
        expected = "one for servers or clients: its extended key usage names other purposes only"
        raise InvalidValue("certificate", _named(leaf), expected)


def _fits(leaf: "Certificate", purpose: Purpose) -> bool:
    from cryptography.x509 import ExtendedKeyUsage, ExtensionNotFound
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        purposes = leaf.extensions.get_extension_for_class(ExtendedKeyUsage).value
    except ExtensionNotFound:
        return True
    return any(
        each in (purpose_oid(purpose), ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE) for each in purposes
    )


def purpose_oid(purpose: Purpose) -> "ObjectIdentifier":
    """How extended key usage says it."""
    from cryptography.x509.oid import ExtendedKeyUsageOID

    clients = purpose is Purpose.CLIENTS
    return ExtendedKeyUsageOID.CLIENT_AUTH if clients else ExtendedKeyUsageOID.SERVER_AUTH


def fits(chain: str, purpose: Purpose) -> bool:
    """Whether the first certificate of a chain in PEM, known to be right, is for that."""
    from cryptography.x509 import load_pem_x509_certificate

    return _fits(load_pem_x509_certificate(chain.encode()), purpose)


def hosts_of(chain: str) -> tuple[str, ...]:
    """Names and addresses that the first certificate of a chain in PEM, known to be right, is for."""
    from cryptography.x509 import load_pem_x509_certificate

    return _hosts(load_pem_x509_certificate(chain.encode()))


def _hosts(leaf: "Certificate") -> tuple[str, ...]:
    from cryptography.x509 import DNSName, ExtensionNotFound, IPAddress, SubjectAlternativeName

    try:
        names = leaf.extensions.get_extension_for_class(SubjectAlternativeName).value
    except ExtensionNotFound:
        return ()
    return (*names.get_values_for_type(DNSName), *map(str, names.get_values_for_type(IPAddress)))


def _kind(key: object) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {_CURVES.get(key.curve.name, key.curve.name)}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    return type(key).__name__.lstrip("_").removesuffix("PublicKey")


def _named(certificate: "Certificate") -> str:
    return _short(certificate.subject.rfc4514_string()) or "a certificate without subject"


def _short(text: str) -> str:
    """On one line: what a stranger wrote into a certificate is shown to people."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown[:_LONGEST_NAME]
