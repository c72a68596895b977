"""JWTs that are signed here, for services whose secret the appliance has."""

from marchproxy.dataplane.credentials.jws import unsigned
from marchproxy.dataplane.credentials.signatures import sign
from marchproxy.model.entities import Service
from marchproxy.model.publickey import encode
from marchproxy.store.tokens import Token

ISSUER = "marchproxy"
"""`iss` where the service asks for no other."""


def write_jwt(service: Service, record: Token, secret: bytes) -> str:
    """The JWT of a record, as the service wants it: HS256, HS384 or HS512."""
    claims: dict[str, object] = {
        "iss": service.jwt_issuer or ISSUER,
        "sub": record.service,
        "aud": service.jwt_audience or record.service,
        "iat": int(record.created.timestamp()),
        "jti": record.jti,
    }
    if record.expires is not None:
        claims["exp"] = int(record.expires.timestamp())
    text = unsigned({"alg": service.jwt_algorithm.value, "typ": "JWT"}, claims)
    return f"{text}.{encode(sign(service.jwt_algorithm, secret, text.encode()))}"
