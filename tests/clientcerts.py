"""Certificates of clients for tests, by CAs of their own, and what these have revoked."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class ClientAuthority:
    """One that signs clients."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._now = datetime.now(UTC).replace(microsecond=0)
        constraint = x509.BasicConstraints(ca=True, path_length=0)
        made = self._builder(self._name, self._key).add_extension(constraint, critical=True)
        self._own = made.sign(self._key, SHA256())
        self.pem = self._own.public_bytes(Encoding.PEM).decode()

    def client(
        self, folder: Path, cn: str, *more: x509.GeneralName, ou: str = "", ended: bool = False
    ) -> tuple[Path, x509.Certificate]:
        """A certificate with its key in one file."""
        key = ec.generate_private_key(ec.SECP256R1())
        units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, ou)] if ou else []
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn), *units])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = self._builder(name, key, ended=ended).add_extension(usage, critical=False)
        if more:
            builder = builder.add_extension(x509.SubjectAlternativeName(more), critical=False)
        made = builder.sign(self._key, SHA256())
        path = folder / f"{self._name.rfc4514_string()}-{made.serial_number}.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(private + made.public_bytes(Encoding.PEM))
        return path, made

    def revoking(self, *certificates: x509.Certificate, days: int = 1) -> str:
        """A revocation list with these, in PEM form, which runs out after so many days."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(self._now - timedelta(hours=1)).next_update(
            self._now + timedelta(days=days)
        )
        for each in certificates:
            entry = x509.RevokedCertificateBuilder().serial_number(each.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(self._now).build())
        return builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM).decode()

    def _builder(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, ended: bool = False
    ) -> x509.CertificateBuilder:
        days = -1 if ended else 30
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - timedelta(days=2))
            .not_valid_after(self._now + timedelta(days=days))
        )


def showing(path: Path | None) -> ssl.SSLContext:
    """A client that trusts whoever answers, and shows this."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if path is not None:
        context.load_cert_chain(path)
    return context
