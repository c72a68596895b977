"""`--jwt-key` and `--jwks` of `service`: from what an operator has in a file to what a service holds.

What the file holds decides what it is taken for: a public key is never a secret, nor the other way round.
"""

import json
from typing import TYPE_CHECKING, Any

import typer

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import InvalidFile, WrongUsage
from marchproxy.cli.fields import given
from marchproxy.cli.files import read_bytes
from marchproxy.cli.framework import environment_of
from marchproxy.model.entities import Auth
from marchproxy.model.errors import InvalidValue
from marchproxy.model.rules import OF_JWT

if TYPE_CHECKING:
    from marchproxy.cli.editing import Then
    from marchproxy.model.publickey import PublicKey
    from marchproxy.store.store import Store

KEYS, URL = "jwt_keys", "jwks_url"
"""Fields of a service, which hold what the two flags name until `read` has looked at it."""
_PRIVATE = "a public key, and this one is private: openssl pkey -in FILE -pubout makes one of it"


def read(context: typer.Context, cluster: str, name: str) -> "Then | None":
    """Put what `--jwt-key` or `--jwks` names in place of these flags among the given fields.

    Returns what keeps a secret once the service is there. Raises `NotFound`, `NotPermitted`, `InvalidFile`,
    `InvalidValue` for a file that holds nothing of the kind, and `WrongUsage`.
    """
    fields, environment = given(context), environment_of(context)
    file, source = fields.pop(KEYS, None), fields.pop(URL, None)
    if str(fields.get("auth", Auth.JWT)).lower() != Auth.JWT:
        # What a service asked of its JWTs is no condition for taking none any more.
        fields.update({name: fields.get(name, "") for name in OF_JWT})
    if file is not None and source is not None:
        raise WrongUsage("--jwt-key and --jwks each say all keys of the service: give one of them")
    if source == "" or file == "":
        fields.update(jwt_keys=[], jwks_url="")
    elif source is not None and "://" in source:
        fields.update(jwt_keys=[], jwks_url=source)
    elif source is not None:
        _put(fields, _set(_json(read_bytes(environment, source), source), source))
    elif file is not None:
        return _key(environment, fields, file, cluster, name)
    return None


def _key(
    environment: Environment, fields: dict[str, Any], file: str, cluster: str, name: str
) -> "Then | None":
    data = read_bytes(environment, file)
    start = data.lstrip()
    if start.startswith((b"-----BEGIN", b"{")):
        _put(fields, _pem(data, file) if start.startswith(b"-") else _jwk(_json(data, file), file))
        return None
    if str(fields.get("jwt_algorithm", "")).upper() not in ("HS256", "HS384", "HS512"):
        raise WrongUsage(
            f"{file} holds no public key",
            hint="a secret is taken over with --jwt-algorithm HS256, HS384 or HS512",
        )
    from marchproxy.store.credentials import check_secret

    secret = data.removesuffix(b"\n").removesuffix(b"\r")
    check_secret(secret)
    fields.update(jwt_keys=[], jwks_url="")

    def keep(store: "Store") -> None:
        store.credentials.keep_secret(cluster, name, secret)

    return keep


def _put(fields: dict[str, Any], keys: "tuple[PublicKey, ...]") -> None:
    """The algorithm is that of the keys, unless it is given."""
    from marchproxy.model.entities import JwtAlgorithm

    own = {algorithm.key_type: algorithm.value for algorithm in JwtAlgorithm if algorithm.key_type}
    fields.update(jwt_keys=[key.document() for key in keys], jwks_url="")
    fields.setdefault("jwt_algorithm", own[keys[0].kty])


def _pem(data: bytes, file: str) -> "tuple[PublicKey, ...]":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    if b"PRIVATE KEY-----" in data:
        raise InvalidValue(KEYS, file, _PRIVATE)
    try:
        certificate = b"-----BEGIN CERTIFICATE-----" in data
        key = load_pem_x509_certificate(data).public_key() if certificate else load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidValue(KEYS, file, "a public key or certificate in PEM form") from None
    return _jwk(_document(key, file), file)


def _document(key: Any, file: str) -> dict[str, str]:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    from marchproxy.model.publickey import encode

    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        point = key.public_numbers()
        return {"kty": "EC", "crv": "P-256", "x": _number(point.x, 32), "y": _number(point.y, 32)}
    if isinstance(key, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": encode(key.public_bytes_raw())}
    raise InvalidValue(KEYS, file, "a key of RSA, P-256 or Ed25519")


def _number(value: int, size: int | None = None) -> str:
    from marchproxy.model.publickey import encode

    return encode(value.to_bytes(size or (value.bit_length() + 7) // 8))


def _jwk(document: dict[str, Any], file: str) -> "tuple[PublicKey, ...]":
    return _set(document if "keys" in document else {"keys": [document]}, file)


def _set(document: dict[str, Any], file: str) -> "tuple[PublicKey, ...]":
    from marchproxy.model.publickey import parse_set

    try:
        return parse_set(document, field=KEYS)
    except InvalidValue as error:
        raise error.at(file) from None


def _json(data: bytes, file: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise InvalidFile(f"{file} holds no JWK Set", hint='expected JSON: {"keys": [...]}')
    return document
