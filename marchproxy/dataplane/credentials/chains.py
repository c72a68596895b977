"""Certificates of clients checked where TLS is not Python's ssl: what OpenSSL checks in a handshake over TCP.

The chain, times and revocation are OpenSSL's here as well (pyOpenSSL, which aioquic brings). What it is not
told to look at is what a certificate is for and how it is signed: X509_check_purpose(3) for `sslclient`, and
security level 2 of SSL_CTX_set_security_level(3).
"""

from collections.abc import Sequence
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto

from marchproxy.policy.plan import ClientTls

MOST = 10
"""Certificates that a client may send, its own included: each costs a look, and OpenSSL follows ten."""
_LEAST_RSA, _LEAST_CURVE = 2048, 224
"""Bits of security level 2."""
_BEGIN = "-----BEGIN X509 CRL-----"
_UNREADABLE = (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
"""What cryptography raises beside `ValueError`."""


def refused(certificate: x509.Certificate, beside: Sequence[x509.Certificate], asked: ClientTls) -> str:
    """Why a client's certificate is not taken, with those that it sent beside it; empty: it is.

    Raises nothing.
    """
    if len(beside) >= MOST:
        return "too many certificates"
    try:
        return _refused(certificate, beside, asked)
    except (crypto.Error, ValueError, UnsupportedAlgorithm, *_UNREADABLE) as error:
        return f"the certificate cannot be read: {error}"


def _refused(certificate: x509.Certificate, beside: Sequence[x509.Certificate], asked: ClientTls) -> str:
    context = crypto.X509StoreContext(
        _store(asked),
        crypto.X509.from_cryptography(certificate),
        [crypto.X509.from_cryptography(each) for each in beside],
    )
    try:
        verified = [each.to_cryptography() for each in context.get_verified_chain()]
    except crypto.X509StoreContextError as error:
        return str(error)
    if not _signs(verified[0]):
        return "the certificate is not for signatures"
    if not all(map(_is_for_clients, verified)):
        return "the certificate is not for clients"
    # What the authority's own is signed with proves nothing: it is here.
    if not (all(map(_is_long, verified)) and all(map(_is_signed_well, verified[:-1]))):
        return "the certificate has a key or a signature that is too weak"
    return ""


@lru_cache(maxsize=16)
def _store(asked: ClientTls) -> crypto.X509Store:
    store = crypto.X509Store()
    for each in x509.load_pem_x509_certificates(asked.ca.encode()):
        store.add_cert(crypto.X509.from_cryptography(each))
    if asked.crl:
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK)
        for text in asked.crl.split(_BEGIN)[1:]:
            store.add_crl(x509.load_pem_x509_crl((_BEGIN + text).encode()))
    return store


def _is_for_clients(certificate: x509.Certificate) -> bool:
    try:
        found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.CLIENT_AUTH in found


def _signs(certificate: x509.Certificate) -> bool:
    try:
        found = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return found.digital_signature or found.key_agreement


def _is_long(certificate: x509.Certificate) -> bool:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= _LEAST_RSA
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.key_size >= _LEAST_CURVE
    return isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)


def _is_signed_well(certificate: x509.Certificate) -> bool:
    # None: the algorithm has a hash of its own, as Ed25519 does.
    used = certificate.signature_hash_algorithm
    return used is None or used.digest_size >= 28
