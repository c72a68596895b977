"""Signatures that are checked by public keys: RS256, ES256 and EdDSA (RFC 7518 section 3, RFC 8037)."""

from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256

from marchproxy.dataplane.credentials.signatures import Check
from marchproxy.model.publickey import PublicKey, decode

_P256_BYTES = 32
_SHA256 = ec.ECDSA(SHA256())


def check_by(key: PublicKey) -> Check:
    """What checks signatures by a key."""
    return _MAKERS[key.kty](key)


def _rsa(key: PublicKey) -> Check:
    public = rsa.RSAPublicNumbers(_number(key.e), _number(key.n)).public_key()
    return _checked(lambda text, signature: public.verify(signature, text, padding.PKCS1v15(), SHA256()))


def _ec(key: PublicKey) -> Check:
    public = ec.EllipticCurvePublicNumbers(_number(key.x), _number(key.y), ec.SECP256R1()).public_key()

    def check(text: bytes, signature: bytes) -> None:
        # Two numbers of 32 bytes, not ASN.1 (RFC 7518 section 3.4).
        if len(signature) != 2 * _P256_BYTES:
            raise InvalidSignature
        halves = (signature[:_P256_BYTES], signature[_P256_BYTES:])
        public.verify(utils.encode_dss_signature(*(int.from_bytes(half) for half in halves)), text, _SHA256)

    return _checked(check)


def _okp(key: PublicKey) -> Check:
    public = ed25519.Ed25519PublicKey.from_public_bytes(decode(key.x or ""))
    return _checked(lambda text, signature: public.verify(signature, text))


_MAKERS: dict[str, Callable[[PublicKey], Check]] = {"RSA": _rsa, "EC": _ec, "OKP": _okp}


def _checked(verify: Callable[[bytes, bytes], None]) -> Check:
    def check(text: bytes, signature: bytes) -> bool:
        try:
            verify(text, signature)
        except InvalidSignature:
            return False
        return True

    return check


def _number(text: str | None) -> int:
    return int.from_bytes(decode(text or ""), "big")
