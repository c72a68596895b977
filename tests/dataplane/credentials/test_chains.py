"""chains: whom a handshake over TCP lets in, and nobody else."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku
from cryptography.x509.oid import NameOID

from marchproxy.dataplane.credentials import chains
from marchproxy.dataplane.credentials.chains import refused
from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.policy.plan import ClientTls
from tests.certificates import identity
from tests.dataplane.credentials.test_tickets import shake

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


class Issued:
    """A certificate with its key, and its issuer."""

    def __init__(self, name: str, issuer: "Issued | None" = None, *, key: Any = None, **said: Any) -> None:
        self.issuer = issuer
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(issuer.name if issuer else self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(said.get("since", NOW - DAY))
            .not_valid_after(said.get("until", NOW + DAY))
            .add_extension(x509.BasicConstraints(said.get("ca", False), None), critical=True)
        )
        if "purposes" in said:
            builder = builder.add_extension(x509.ExtendedKeyUsage(said["purposes"]), critical=False)
        if "usage" in said:
            builder = builder.add_extension(_usage(said["usage"]), critical=True)
        signer = (issuer or self).key
        algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else SHA256()
        self.made = builder.sign(signer, algorithm)

    @property
    def pem(self) -> str:
        return self.made.public_bytes(Encoding.PEM).decode()

    def revoking(self, *others: "Issued", until: datetime = NOW + DAY) -> str:
        builder = x509.CertificateRevocationListBuilder(self.name, NOW - 3 * DAY, until)
        for each in others:
            entry = x509.RevokedCertificateBuilder(each.made.serial_number, NOW - 3 * DAY)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM).decode()


def _usage(wanted: str) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
    more = ("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: name == wanted for name in (*names, *more)})


ROOT, OTHER = Issued("root", ca=True), Issued("other", ca=True)
BETWEEN = Issued("between", ROOT, ca=True)
FOR_SERVERS = Issued("for servers", ROOT, ca=True, purposes=[Eku.SERVER_AUTH])
NO_CA = Issued("no authority", ROOT)
REVOKED, SPARED = Issued("revoked", ROOT), Issued("spared", ROOT)
PLAIN = ClientTls(ROOT.pem, "")
LISTED = ClientTls(ROOT.pem, ROOT.revoking(REVOKED))
LAPSED = ClientTls(ROOT.pem, ROOT.revoking(REVOKED, until=NOW - DAY))

CASES: dict[str, tuple[Issued, ClientTls, bool]] = {
    "plain": (Issued("c", ROOT), PLAIN, True),
    "another-authority": (Issued("c", OTHER), PLAIN, False),
    "by-itself": (Issued("c"), PLAIN, False),
    "between": (Issued("c", BETWEEN), PLAIN, True),
    "by-no-authority": (Issued("c", NO_CA), PLAIN, False),
    "ended": (Issued("c", ROOT, until=NOW - DAY / 2), PLAIN, False),
    "not-yet": (Issued("c", ROOT, since=NOW + DAY / 2), PLAIN, False),
    "for-clients": (Issued("c", ROOT, purposes=[Eku.CLIENT_AUTH, Eku.SERVER_AUTH]), PLAIN, True),
    "for-servers": (Issued("c", ROOT, purposes=[Eku.SERVER_AUTH]), PLAIN, False),
    "for-anything": (Issued("c", ROOT, purposes=[Eku.ANY_EXTENDED_KEY_USAGE]), PLAIN, False),
    "by-one-for-servers": (Issued("c", FOR_SERVERS), PLAIN, False),
    "signs": (Issued("c", ROOT, usage="digital_signature"), PLAIN, True),
    "agrees": (Issued("c", ROOT, usage="key_agreement"), PLAIN, True),
    "enciphers": (Issued("c", ROOT, usage="key_encipherment"), PLAIN, False),
    "rsa": (Issued("c", ROOT, key=rsa.generate_private_key(65537, 2048)), PLAIN, True),
    "short-rsa": (Issued("c", ROOT, key=rsa.generate_private_key(65537, 1024)), PLAIN, False),  # noqa: S505
    "ed25519": (Issued("c", ROOT, key=ed25519.Ed25519PrivateKey.generate()), PLAIN, True),
    "revoked": (REVOKED, LISTED, False),
    "spared": (SPARED, LISTED, True),
    "list-lapsed": (SPARED, LAPSED, False),
    "list-of-another": (Issued("c", BETWEEN), LISTED, False),
}


def beside(issued: Issued) -> list[x509.Certificate]:
    """What its client sends with it."""
    found, each = [], issued.issuer
    while each is not None and each.issuer is not None:
        found.append(each.made)
        each = each.issuer
    return found


def over_tcp(folder: Path, issued: Issued, asked: ClientTls) -> bool:
    """Whether OpenSSL lets it in."""
    file = folder / "client.pem"
    key = issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    sent = [issued.made, *beside(issued)]
    file.write_bytes(key + b"".join(each.public_bytes(Encoding.PEM) for each in sent))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.set_ciphers("ALL:@SECLEVEL=0")
    client.load_cert_chain(file)
    contexts = Contexts()
    contexts.learn([identity("one")])
    try:
        shake(contexts.asking("one", (), asked, required=True), client)
    except ssl.SSLError:
        return False
    return True


@pytest.mark.parametrize("case", CASES)
def test_who_gets_in_over_tcp_gets_in_here(case: str, tmp_path: Path) -> None:
    issued, asked, let_in = CASES[case]
    why = refused(issued.made, beside(issued), asked)
    assert (not why, over_tcp(tmp_path, issued, asked)) == (let_in, let_in), why


def test_more_certificates_than_anybody_needs_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    issued = Issued("c", ROOT)
    assert not refused(issued.made, [BETWEEN.made] * (chains.MOST - 1), PLAIN)
    monkeypatch.setattr(chains, "_store", None)
    assert refused(issued.made, [BETWEEN.made] * chains.MOST, PLAIN)
