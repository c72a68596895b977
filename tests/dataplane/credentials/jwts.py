"""JWTs as tests write them: signed with any key, or with none."""

import hmac
import json
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256

from marchproxy.model.publickey import PublicKey, encode, parse_key

SECRET = bytes(range(32))
NOW = 1_800_000_000
"""Seconds since 1970: an instant in January 2027."""

type Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | bytes


@cache
def rsa_key(number: int = 0) -> rsa.RSAPrivateKey:
    """A key of an issuer's own, another one for each number."""
    return rsa.generate_private_key(65537, 2048)


@cache
def ec_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    """As `rsa_key`, on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


@cache
def ed_key(number: int = 0) -> ed25519.Ed25519PrivateKey:
    """As `rsa_key`, of Ed25519."""
    return ed25519.Ed25519PrivateKey.generate()


def public(key: Private, kid: str | None = None) -> PublicKey:
    """Its public key as the model has it."""
    named = {} if kid is None else {"kid": kid}
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        return parse_key({"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e), **named})
    if isinstance(key, ec.EllipticCurvePrivateKey):
        point = key.public_key().public_numbers()
        both = {"x": number(point.x, 32), "y": number(point.y, 32)}
        return parse_key({"kty": "EC", "crv": "P-256", **both, **named})
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    raw = key.public_key().public_bytes_raw()
    return parse_key({"kty": "OKP", "crv": "Ed25519", "x": encode(raw), **named})


def number(value: int, size: int | None = None) -> str:
    """A number as JWKs have it."""
    return encode(value.to_bytes(size or (value.bit_length() + 7) // 8))


def part(value: object) -> str:
    """A part of a JWT."""
    return encode(value if isinstance(value, bytes) else json.dumps(value).encode())


def claims(**more: Any) -> dict[str, Any]:
    """Claims that end an hour after `NOW`; None leaves one out."""
    return {name: value for name, value in ({"exp": NOW + 3600} | more).items() if value is not None}


def jwt(key: Private, alg: str, body: object, **header: Any) -> str:
    """A JWT signed with `key`, whatever `alg` says."""
    text = f"{part({'alg': alg, 'typ': 'JWT'} | header)}.{part(body)}"
    return f"{text}.{encode(signature(key, alg, text.encode()))}"


def signature(key: Private, alg: str, text: bytes) -> bytes:
    """A signature as RFC 7518 and RFC 8037 have it."""
    if isinstance(key, bytes):
        return hmac.digest(key, text, {"HS384": "sha384", "HS512": "sha512"}.get(alg, "sha256"))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(text, padding.PKCS1v15(), SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = utils.decode_dss_signature(key.sign(text, ec.ECDSA(SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)
    return key.sign(text)
