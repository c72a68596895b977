"""x509: what operators bring, and what is wrong with it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from marchproxy.model.errors import InvalidValue
from marchproxy.store.x509 import Material, read_material
from tests.certificates import authority, signed

NOW = datetime.now(UTC)
type Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def pem(key: object, form: PrivateFormat = PrivateFormat.PKCS8, passphrase: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    written: bytes = key.private_bytes(Encoding.PEM, form, encryption)  # type: ignore[attr-defined]
    return written


def made(
    key: Key,
    *,
    days: int = 10,
    hosts: tuple[str, ...] = ("a.example",),
    usage: x509.ObjectIdentifier | None = None,
) -> bytes:
    """A certificate that signs itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tést\nname")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=20))
        .not_valid_after(NOW + timedelta(days=days))
    )
    if hosts:
        names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    own = None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256()
    return builder.sign(key, own).public_bytes(Encoding.PEM)


def read(certificate: bytes, key: bytes) -> Material:
    return read_material(certificate, key, NOW)


KEYS: dict[str, Callable[[], Key]] = {
    "EC P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EC P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "EC P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "RSA 2048": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.mark.parametrize("kind", KEYS)
def test_what_keys_are_taken(kind: str) -> None:
    key = KEYS[kind]()
    found = read(made(key), pem(key))
    assert found.facts.kind == kind
    assert found.facts.hosts == ("a.example",)
    assert found.facts.subject == "CN=tést?name"
    assert found.facts.expires - found.facts.begins == timedelta(days=30)
    assert found.key.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert "PRIVATE" not in repr(found)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_chain_and_key_may_be_in_one_file_with_other_things(form: PrivateFormat) -> None:
    key = KEYS["EC P-256"]()
    whole = b"subject=x\r\n" + pem(key, form) + b"Bag Attributes\n" + made(key)
    assert read(whole, whole).facts.hosts == ("a.example",)


def test_a_chain_is_in_order() -> None:
    leaf, ca = signed("a.example"), authority()
    found = read((leaf.chain + ca.chain).encode(), leaf.key)
    assert found.chain == leaf.chain + ca.chain
    assert found.facts.expires == leaf.facts.expires
    with pytest.raises(InvalidValue, match="certificate: 'its certificate is number 2"):
        read((ca.chain + leaf.chain).encode(), leaf.key)
    with pytest.raises(InvalidValue, match=r"number 2, .*, did not sign number 1"):
        read((leaf.chain + authority("another").chain).encode(), leaf.key)
    with pytest.raises(InvalidValue, match="did not sign number 1"):
        read((leaf.chain * 2).encode(), leaf.key)


def refusal(certificate: bytes, key: bytes) -> str:
    with pytest.raises(InvalidValue) as caught:
        read(certificate, key)
    return f"{caught.value.message}: {caught.value.hint}"


def test_what_does_not_fit_is_said() -> None:
    key, other = KEYS["EC P-256"](), KEYS["EC P-256"]()
    good, own = made(key), pem(key)
    assert "belongs to another" in refusal(good, pem(other))
    assert "openssl pkey" in refusal(good, pem(key, passphrase=b"secret"))
    assert "PEM form" in refusal(b"nonsense", own)
    assert "PEM form" in refusal(good[:300], own)
    assert "PEM form" in refusal(good, b"nonsense")
    assert "PEM form" in refusal(good, own[:100])
    assert "PEM form" in refusal(own, own)
    assert "PEM form" in refusal(good, good)
    assert "expired at" in refusal(made(key, days=-1), own)
    assert "at most 10" in refusal(good * 11, own)
    purpose = made(key, usage=ExtendedKeyUsageOID.CODE_SIGNING)
    assert "one for servers or clients" in refusal(purpose, own)
    assert read(made(key, usage=ExtendedKeyUsageOID.CLIENT_AUTH), own).facts.hosts
    assert read(made(key, usage=ExtendedKeyUsageOID.SERVER_AUTH), own).facts.hosts
    assert read(made(key, hosts=()), own).facts.hosts == ()


def test_weak_and_strange_keys_are_refused() -> None:
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505  (that is what is refused)
    assert "RSA 1024" in refusal(made(weak), pem(weak))
    strange = ec.generate_private_key(ec.SECP256K1())
    assert "P-256" in refusal(made(strange), pem(strange))
    assert "Ed25519" in refusal(made(KEYS["EC P-256"]()), pem(dsa.generate_private_key(2048)))
