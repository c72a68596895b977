"""Public keys that JWTs are checked with, as JSON Web Keys (RFC 7517, RFC 7518 section 6, RFC 8037).

Only three kinds can be expressed: RSA, P-256 and Ed25519. There is no symmetric one, so that no secret gets
into a snapshot and no public key can ever serve as one; and whoever pastes a private key is told.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any

from marchproxy.model.errors import InvalidValue

MAX_KEYS = 16
"""Of one service. Each of them may have to be tried where a JWT does not say which it was signed with."""
MIN_RSA_BITS = 2048
"""RFC 7518 section 3.3."""
MAX_RSA_BITS = 8192

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
_PARAMETERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_CURVES = (("EC", "P-256"), ("OKP", "Ed25519"))
_PRIVATE = ("d", "k", "p", "q", "dp", "dq", "qi", "oth")
_IGNORED = ("use", "key_ops", "alg", "x5u", "x5c", "x5t", "x5t#S256", "ext", "iat", "nbf", "exp")
"""What documents of issuers hold beside the key. What it may be used for is the service's to say."""

# P-256: FIPS 186-4, appendix D.1.2.3.
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One key; numbers are base64url without padding, as in the JWK."""

    kty: str
    """`RSA` (with `n` and `e`), `EC` (P-256, with `x` and `y`) or `OKP` (Ed25519, with `x`)."""
    kid: str | None = None
    """What its issuer calls it."""
    n: str | None = None
    e: str | None = None
    x: str | None = None
    y: str | None = None

    def document(self) -> dict[str, str]:
        """The JWK."""
        curve = {kty: {"crv": crv} for kty, crv in _CURVES}.get(self.kty, {})
        values = {"kid": self.kid, "n": self.n, "e": self.e, "x": self.x, "y": self.y}
        return {"kty": self.kty} | curve | {name: text for name, text in values.items() if text is not None}


def parse_key(raw: Any, *, field: str = "jwt_keys") -> PublicKey:
    """Read a JWK. Raises `InvalidValue`, which never repeats the value of a private one."""
    if not isinstance(raw, dict) or raw.get("kty") not in ("RSA", "EC", "OKP"):
        kind = raw.get("kty") if isinstance(raw, dict) else raw
        raise InvalidValue(field, kind, "a public key (JWK) whose kty is RSA, EC or OKP")
    if any(name in raw for name in _PRIVATE):
        raise InvalidValue(field, "…", "a public key, and this one is private: keep it where it signs")
    kty = raw["kty"]
    unknown = sorted(map(str, raw.keys() - {"kty", "kid", *_PARAMETERS[kty], *_IGNORED}))
    if unknown:
        raise InvalidValue(field, unknown[0], f"a JWK with {', '.join(('kty', 'kid', *_PARAMETERS[kty]))}")
    kid = raw.get("kid")
    if kid is not None and not (isinstance(kid, str) and len(kid) <= 255 and kid.isprintable()):
        raise InvalidValue(field, kid, "a kid of at most 255 printable characters")
    return _READERS[kty](raw, kid, field)


def parse_keys(raw: Any, *, field: str = "jwt_keys") -> tuple[PublicKey, ...]:
    """Read a list of JWKs, each once, in the order of their documents."""
    if not isinstance(raw, list) or len(raw) > MAX_KEYS:
        raise InvalidValue(field, raw, f"a list of at most {MAX_KEYS} public keys (JWK)")
    keys = {parse_key(item, field=field) for item in raw}
    return tuple(sorted(keys, key=lambda key: sorted(key.document().items())))


def parse_set(raw: Any, *, field: str = "jwks") -> tuple[PublicKey, ...]:
    """Read a JWK Set (RFC 7517 section 5) as issuers publish it.

    Keys for encryption and of kinds that are not understood here are left out, and so is what else is said
    of a key, as that section wants it. Raises `InvalidValue` for a key that is broken or private, and for a
    set of which nothing is left.
    """
    keys = raw.get("keys") if isinstance(raw, dict) else None
    if not isinstance(keys, list):
        raise InvalidValue(field, keys, "a JWK Set: an object whose keys is a list")
    found = parse_keys([_bare(key) for key in keys if _understood(key)], field=field)
    if not found:
        raise InvalidValue(field, f"{len(keys)} keys", "one that signs with RS256, ES256 or EdDSA at least")
    return found


def _bare(key: Any) -> Any:
    if not isinstance(key, dict):
        return key
    own = {"kty", "kid", *_PRIVATE, *_PARAMETERS[key["kty"]]}
    return {name: value for name, value in key.items() if name in own}


def _understood(key: Any) -> bool:
    if not isinstance(key, dict):
        return True
    kind = key.get("kty") == "RSA" or (key.get("kty"), key.get("crv")) in _CURVES
    return kind and key.get("use") in (None, "sig") and key.get("alg") in (None, "RS256", "ES256", "EdDSA")


def encode(data: bytes) -> str:
    """Base64url without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """The bytes of base64url without padding, in the one spelling that they have. Raises `ValueError`.

    Python's own decoder passes over what is no base64, so that one value had many spellings.
    """
    if not _BASE64URL.fullmatch(text):
        raise ValueError("not base64url")
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode(data) != text:
        raise ValueError("base64url with bits to spare")
    return data


def _rsa(raw: dict[str, Any], kid: str | None, field: str) -> PublicKey:
    modulus, exponent = _number(raw, "n", field), _number(raw, "e", field)
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
        raise InvalidValue(
            field, f"RSA of {modulus.bit_length()} bits", f"{MIN_RSA_BITS} to {MAX_RSA_BITS} bits"
        )
    if modulus % 2 == 0 or exponent % 2 == 0 or not 3 <= exponent < 2**32:
        raise InvalidValue(field, raw["e"], "an RSA key with an odd modulus and exponent")
    return PublicKey("RSA", kid, n=raw["n"], e=raw["e"])


def _ec(raw: dict[str, Any], kid: str | None, field: str) -> PublicKey:
    if raw.get("crv") != "P-256":
        raise InvalidValue(field, raw.get("crv"), "the curve P-256: ES256 is what is understood")
    x, y = _number(raw, "x", field, 32), _number(raw, "y", field, 32)
    # A point off the curve must not reach a library, nor fail only when the first client comes.
    if max(x, y) >= _P or (y * y - x * x * x + 3 * x - _B) % _P:
        raise InvalidValue(field, raw["x"], "a point of P-256")
    return PublicKey("EC", kid, x=raw["x"], y=raw["y"])


def _okp(raw: dict[str, Any], kid: str | None, field: str) -> PublicKey:
    if raw.get("crv") != "Ed25519":
        raise InvalidValue(field, raw.get("crv"), "the curve Ed25519")
    _number(raw, "x", field, 32)
    return PublicKey("OKP", kid, x=raw["x"])


_READERS = {"RSA": _rsa, "EC": _ec, "OKP": _okp}


def _number(raw: dict[str, Any], name: str, field: str, size: int | None = None) -> int:
    text = raw.get(name)
    try:
        data = decode(text if isinstance(text, str) else "!")
    except ValueError:
        data = b""
    if not data or len(data) > MAX_RSA_BITS // 8 + 1 or size not in (None, len(data)):
        expected = f"{size} bytes of base64url" if size else "a number in base64url"
        raise InvalidValue(field, text, f"{name}: {expected}")
    return int.from_bytes(data, "big")
