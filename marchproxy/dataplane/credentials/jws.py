"""JSON Web Tokens in compact form (RFC 7515, RFC 7519), read and written. Whom to believe, others say."""

import json
from dataclasses import dataclass
from typing import Any

from marchproxy.model.presented import MAX_SECRET
from marchproxy.model.publickey import decode, encode

LEEWAY = 30.0
"""Seconds by which the clock of an issuer may be wrong (RFC 7519 section 4.1.4)."""
MAX_JTI = 255
_LATEST = 253_402_200_000
"""A day before the end of the year 9999, behind which Python has no instants."""


class NotJwt(Exception):
    """What came is no JWT that could be accepted; the text says why, and repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class Jwt:
    """What a JWT claims. Nothing of it is true before its signature has been checked."""

    algorithm: str
    """As its header says."""
    kid: str | None
    issuer: str | None
    audience: tuple[str, ...] | None
    """None: it has no `aud`."""
    expires: float
    """`exp`: seconds since 1970, UTC."""
    not_before: float
    """`nbf`; 0 without."""
    jti: str | None
    signed: bytes
    """The text that the signature is of."""
    signature: bytes


def read(token: str) -> Jwt:
    """Take a JWT apart. Raises `NotJwt`."""
    if len(token) > MAX_SECRET:
        raise NotJwt("too long")
    parts = token.split(".")
    if len(parts) != 3:
        raise NotJwt("not three parts")
    header, claims = _object(parts[0]), _object(parts[1])
    if "crit" in header:
        # RFC 7515 section 4.1.11: what an issuer calls critical and we do not know is a refusal.
        raise NotJwt("critical extensions")
    try:
        signature = decode(parts[2])
    except ValueError as error:
        raise NotJwt(str(error)) from None
    return Jwt(
        algorithm=_text(header, "alg", required=True) or "",
        kid=_text(header, "kid"),
        issuer=_text(claims, "iss"),
        audience=_audience(claims.get("aud")),
        expires=_instant(claims, "exp", required=True),
        not_before=_instant(claims, "nbf"),
        jti=_text(claims, "jti"),
        signed=f"{parts[0]}.{parts[1]}".encode("ascii"),
        signature=signature,
    )


def unsigned(header: dict[str, object], claims: dict[str, object]) -> str:
    """The first two parts of a JWT: what is to be signed."""
    return f"{encode(_json(header))}.{encode(_json(claims))}"


def _json(value: dict[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _object(part: str) -> dict[str, Any]:
    try:
        value = json.loads(decode(part), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise NotJwt("not JSON in base64url") from None
    if not isinstance(value, dict):
        raise NotJwt("not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a name that comes twice, two readers may believe different ones."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _text(values: dict[str, Any], name: str, *, required: bool = False) -> str | None:
    value = values.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, str) or len(value) > MAX_JTI:
        raise NotJwt(f"{name} is not a short text")
    return value


def _audience(value: Any) -> tuple[str, ...] | None:
    """One text, or a list of them (RFC 7519 section 4.1.3)."""
    if value is None:
        return None
    several = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in several):
        raise NotJwt("aud is not a text")
    return tuple(several)


def _instant(claims: dict[str, Any], name: str, *, required: bool = False) -> float:
    value = claims.get(name)
    if value is None and not required:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise NotJwt(f"{name} is not an instant")
    return float(value)
