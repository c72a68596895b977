"""Paths of requests in one form, so that what policy compares is what a server takes them for.

RFC 3986 section 6.2.2. A path that a server may read as another one is refused, not repaired: dot segments,
which clients resolve themselves, a backslash, NUL, a percent sign that stands for nothing. An encoded slash
stays, and does not separate segments here; but a path that would take another rule once it is decoded as far
as it goes takes none (`decoded`, `routes`). Parameters of segments (`;v=1`, section 3.3) are left out: some
servers look at them, some do not.
"""

import re
from string import punctuation
from urllib.parse import quote, unquote_to_bytes

_PLAIN = re.compile(r"(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*)+/?|/")
"""What needs no look: every segment has a character that is no dot at its beginning."""
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_AS_THEY_ARE = "/!$&'()*+,=:@"
_VISIBLE = "".join(each for each in punctuation if each not in "?#")
_SLASHES = re.compile(r"//+")
_DEPTH = 4
"""Times that a path may be decoded until nothing changes: nobody escapes escapes of escapes."""
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
    # A server may decode more often than we do: its dots and slashes count too.
    whole = _decoded(path.encode(errors="replace"))
    if whole is None or b"\0" in whole:
        return None
    if any(part.split(b";")[0] in (b".", b"..") for part in whole.split(b"/")):
        return None
    return _SLASHES.sub("/", _PARAMETERS.sub("", _ENCODED.sub(_normal, path)))


def decoded(path: str) -> str:
    """A canonical path as it is for who takes every escape for what it stands for."""
    whole = (_decoded(path.encode(errors="replace")) or b"").decode("latin-1")
    return quote(_SLASHES.sub("/", _PARAMETERS.sub("", whole)), safe=_AS_THEY_ARE, encoding="latin-1")


def canonical_prefix(prefix: str) -> str:
    """The beginning of paths that a mapping wants, as canonical paths begin, without a slash at its end."""
    return (canonical_path(quote(prefix, safe=_VISIBLE)) or prefix).rstrip("/")


def canonical_whole(path: str) -> str:
    """The one path that a mapping wants, as canonical paths are."""
    return canonical_path(quote(path, safe=_VISIBLE)) or path


def _decoded(path: bytes) -> bytes | None:
    """Decoded until nothing is left to decode; None: that takes more than `_DEPTH` steps."""
    for _ in range(_DEPTH):
        before, path = path, unquote_to_bytes(path).replace(b"\\", b"/")
        if path == before:
            return path
    return None


def _normal(escape: re.Match[str]) -> str:
    value = int(escape[1], 16)
    return chr(value) if value in _UNRESERVED else f"%{value:02X}"
