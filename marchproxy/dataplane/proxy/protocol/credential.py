"""Credentials as clients write them: checked for their form only."""

import re
from base64 import b64decode

from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.errors import InvalidValue
from marchproxy.model.names import parse_qualified
from marchproxy.model.presented import MAX_SECRET, Presented
from marchproxy.model.reason import Reason

_SECRET = re.compile(r"[!-~]+")
"""What both tokens and JWTs are made of; neither NUL nor newline gets any further."""


def read_token(text: str) -> Presented:
    """Read a token that comes without a service's name. Raises `Unfit`."""
    if len(text) > MAX_SECRET or not _SECRET.fullmatch(text):
        raise Unfit(Reason.AUTH_INVALID, "a token is printable ASCII without spaces")
    return Presented(text)


def read_pair(service: str, token: str) -> Presented:
    """Read a service's name and its token; an empty name is none. Raises `Unfit`."""
    secret = read_token(token).secret
    try:
        return Presented(secret, parse_qualified(service, field="service") if service else None)
    except InvalidValue:
        raise Unfit(Reason.AUTH_INVALID, "the user is not the name of a service") from None


def read_authorization(value: str) -> Presented:
    """Read the value of `Proxy-Authorization`: Basic (RFC 7617) or Bearer (RFC 6750). Raises `Unfit`."""
    scheme, _, rest = value.partition(" ")
    rest = rest.strip(" ")
    match scheme.lower():
        case "bearer":
            return read_token(rest)
        case "basic":
            service, colon, token = _decoded(rest).partition(":")
            if not colon:
                raise Unfit(Reason.AUTH_INVALID, "Basic credentials without a colon")
            return read_pair(service, token)
    raise Unfit(Reason.AUTH_INVALID, "credentials are taken by the schemes Basic and Bearer")


def _decoded(text: str) -> str:
    try:
        return b64decode(text, validate=True).decode()
    except ValueError:
        raise Unfit(Reason.AUTH_INVALID, "Basic credentials that are not Base64") from None
