"""Paths of requests in one form, so that what policy compares is what a server takes them for.

RFC 3986 section 6.2.2. A path that a server may read as another one is refused, not repaired: dot segments,
which clients resolve themselves, a backslash, NUL, a percent sign that stands for nothing. An encoded slash
stays, and does not separate segments here. Parameters of segments (`;v=1`, section 3.3) are left out: some
servers look at them, some do not.
"""

import re
from urllib.parse import unquote_to_bytes

_PLAIN = re.compile(r"(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*)+/?|/")
"""What needs no look: every segment has a character that is no dot at its beginning."""
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SLASHES = re.compile(r"//+")
_PARAMETERS = re.compile(r";[^/]*")


def canonical_path(target: str) -> str | None:
    """The path of a request's target, without its query; None: it has two readings.

    Unreserved characters are decoded, escapes are in upper case, several slashes are one.
    """
    path, _, _ = target.partition("?")
    if _PLAIN.fullmatch(path):
        return path
    if path == "*":
        return path
    if not path.startswith("/") or "\\" in path or "#" in path:
        return None
    if len(_ENCODED.findall(path)) != path.count("%"):
        return None
    # A server may decode once more than we do: its dots and slashes count too.
    decoded = unquote_to_bytes(path).replace(b"\\", b"/")
    if b"\0" in decoded or any(part.split(b";")[0] in (b".", b"..") for part in decoded.split(b"/")):
        return None
    return _SLASHES.sub("/", _PARAMETERS.sub("", _ENCODED.sub(_normal, path)))


def _normal(escape: re.Match[str]) -> str:
    value = int(escape[1], 16)
    return chr(value) if value in _UNRESERVED else f"%{value:02X}"
