"""A cluster's own CA, ECDSA on P-384, and what it signs.

A CA rather than certificates that sign themselves: clients are told of it once, and every renewal and every
further listener is trusted from then on. One for each cluster rather than one for the appliance, because
clusters are isolated: whoever trusts one's names need not trust another's.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from marchproxy.model.certificate import Purpose
from marchproxy.model.errors import InvalidValue
from marchproxy.model.readers import parse_host_rule
from marchproxy.store.x509 import Material, material, purpose_oid

if TYPE_CHECKING:
    from cryptography.x509 import CertificateBuilder, GeneralName, KeyUsage, Name

AUTHORITY_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=365)
MAX_LIFETIME = timedelta(days=825)
"""More is refused by clients of Apple's, also from a CA of one's own."""
MAX_HOSTS = 100
_BEFORE = timedelta(hours=1)
"""For clients whose clock is slow."""


def make_authority(owner: str, now: datetime) -> Material:
    """A new CA for the cluster `owner`."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA384

    key = ec.generate_private_key(ec.SECP384R1())
    # A new CA of the same name would be taken for the old one.
    name = _name(f"CA {now:%Y-%m-%d %H:%M:%S} of cluster {owner}", organization="MarchProxy")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(name, name, now, AUTHORITY_LIFETIME)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
    )
    return material([builder.sign(key, SHA384())], key)


def sign(
    authority: str,
    key: bytes,
    hosts: Sequence[str],
    lifetime: timedelta,
    now: datetime,
    *,
    purpose: Purpose = Purpose.SERVERS,
) -> Material:
    """A certificate for `hosts` with a new key, signed by a CA: its PEM, and its key's.

    Raises `InvalidValue` for hosts, or for a lifetime that is too long, or longer than the CA's.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA384
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    signer = x509.load_pem_x509_certificate(authority.encode("ascii"))
    signing = load_pem_private_key(key, None)
    if not isinstance(signing, ec.EllipticCurvePrivateKey):
        raise TypeError("our CAs sign with ECDSA")
    _check_lifetime(lifetime, signer.not_valid_after_utc - now)
    named = [_general(host) for host in hosts]
    if not 0 < len(named) <= MAX_HOSTS:
        raise InvalidValue("host", f"{len(named)} hosts", f"1 to {MAX_HOSTS} names or addresses")
    # It signs in every handshake: OpenSSL does that forty times as fast on P-256 as on P-384.
    own = ec.generate_private_key(ec.SECP256R1())
    identifier = signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _builder(_name(str(named[0].value)), signer.subject, now, lifetime)
        .public_key(own.public_key())
        .add_extension(x509.SubjectAlternativeName(named), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose_oid(purpose)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
    )
    return material([builder.sign(signing, SHA384())], own)


def _check_lifetime(lifetime: timedelta, of_authority: timedelta) -> None:
    if not timedelta(days=1) <= lifetime <= MAX_LIFETIME:
        raise InvalidValue("days", lifetime.days, f"1 to {MAX_LIFETIME.days}: clients refuse more")
    if lifetime > of_authority:
        expected = f"at most {max(0, of_authority.days)}, for the CA ends then: marchproxy cert renew ca"
        raise InvalidValue("days", lifetime.days, expected)


def _builder(subject: "Name", issuer: "Name", now: datetime, lifetime: timedelta) -> "CertificateBuilder":
    from cryptography.x509 import CertificateBuilder, random_serial_number

    return (
        CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + lifetime)
    )


def _general(host: str) -> "GeneralName":
    from cryptography.x509 import DNSName, IPAddress

    try:
        return IPAddress(ip_address(host))
    except ValueError:
        return DNSName(parse_host_rule(host, field="host"))


def _name(common: str, organization: str = "") -> "Name":
    from cryptography.x509 import Name, NameAttribute
    from cryptography.x509.oid import NameOID

    # A common name has at most 64 characters (RFC 5280, ub-common-name); clients look at the others.
    own = NameAttribute(NameOID.COMMON_NAME, common[:64])
    more = [NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return Name([*more, own])


def _usage(*, signs_certificates: bool) -> "KeyUsage":
    from cryptography.x509 import KeyUsage

    return KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
