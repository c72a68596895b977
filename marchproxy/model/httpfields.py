"""Names of HTTP fields, and which of them are nobody's to write but ours."""

import re

from marchproxy.model.errors import InvalidValue

CONNECTION = frozenset(
    {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te", "content-length"}
)
"""Of one connection or its framing only (RFC 9110 section 7.6.1), and never passed on."""
OURS = frozenset({"forwarded", "x-real-ip", "proxy-authorization", "proxy-authenticate"})
OUR_BEGINNINGS = ("x-forwarded-", "x-marchproxy-")
"""What a backend may take for said by us: a client's own are not passed on."""
_FRAMING = frozenset({"trailer", "expect", "via"})
MAX_VALUE = 1024
"""Characters of a value that an operator writes."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,63}")


def parse_field_name(text: str, *, field: str) -> str:
    """Read the name of a field that a request brings, or is to have; in lower case.

    Neither `Host`, nor what belongs to the connection, nor what says who the client is: of these clients' own
    are not passed on, and ours are not for others to write. Servers that hand fields to CGI do not tell `_`
    and `-` apart, so neither does this.
    """
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        raise InvalidValue(field, text, "the name of a header, such as X-Env")
    plain = plain_name(name)
    if plain == "host" or plain in CONNECTION | OURS | _FRAMING or plain.startswith(OUR_BEGINNINGS):
        raise InvalidValue(field, name, "a header other than Host, those of the connection, and our own")
    return name


def parse_field_value(text: str, *, field: str) -> str:
    """Read the value of a field: printable ASCII, without blanks around it."""
    value = text.strip()
    if not value or len(value) > MAX_VALUE or not (value.isascii() and value.isprintable()):
        raise InvalidValue(field, text[:60], f"a value of 1 to {MAX_VALUE} printable ASCII characters")
    return value


def plain_name(name: str) -> str:
    """A name in lower case as CGI sees it."""
    return name.replace("_", "-")
