"""What a mapping does with HTTP requests and answers beside passing them on, as operators write it."""

import re
from typing import NamedTuple

from marchproxy.model.errors import InvalidValue
from marchproxy.model.httpfields import MAX_VALUE, parse_field_name, parse_field_value

REDIRECT_STATUSES = (301, 302, 303, 307, 308)
DEFAULT_REDIRECT = 308
"""Permanent, and the method stays (RFC 9110 section 15.4.9)."""
VERBS = ("set", "add", "remove")

_PLACE = re.compile(r"\{[^{}]*\}")
_PLACES = frozenset({"{host}", "{path}"})
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,=:@/-]*")
_URL = re.compile(r"(?:https?://[A-Za-z0-9.:\[\]{}-]+?)?(?:(?:/|\{path\}|\?)[!-~]*)?")
_AUTHORITY_END = re.compile(r"[/?]|\{path\}")
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?(?::[1-9][0-9]{0,4})?", re.IGNORECASE)


class HeaderAction(NamedTuple):
    """One change to the fields of a message."""

    verb: str
    """`set` replaces all of that name, `add` leaves them, `remove` takes them out."""
    name: str
    """In lower case."""
    value: str = ""


def parse_redirect(text: str, *, field: str) -> str:
    """Read where a redirect leads: a URL, or a path of the same host. `{host}` stands for the request's host
    without its port, `{path}` for its path, which begins with a slash.
    """
    said = text.strip()
    places = _PLACE.findall(said)
    bare = _PLACE.sub("", said)
    wrong = not set(places) <= _PLACES or "{" in bare or "}" in bare or "#" in said
    _, url, rest = said.partition("://")
    wrong = wrong or bool(url and not _AUTHORITY_END.split(rest)[0])
    # A path behind a slash begins with two, which names another host (RFC 3986 section 4.2).
    wrong = wrong or "/{path}" in said or said.startswith(("//", "{"))
    if not said or wrong or len(said) > MAX_VALUE or not _URL.fullmatch(said):
        expected = "a URL such as https://{host}{path} or https://example.com/new, or a path"
        raise InvalidValue(field, text[:60], expected)
    return said


def parse_new_path(text: str, *, field: str) -> str:
    """Read what takes the place of the beginning of paths: plain characters, no dot segments."""
    said = text.strip()
    parts = said.split("/")
    if not _PATH.fullmatch(said) or len(said) > MAX_VALUE or "." in parts or ".." in parts or "//" in said:
        raise InvalidValue(field, text[:60], "a path such as /v2, or /, without escapes")
    return said


def parse_new_host(text: str, *, field: str) -> str:
    """Read what `Host` is to be: a name or IPv4 address, and a port if need be; in lower case."""
    said = text.strip().lower()
    if not _HOST.fullmatch(said) or len(said) > 255 or ".." in said:
        raise InvalidValue(field, text[:60], "a host name such as app.internal, with :PORT if need be")
    return said


def parse_header_action(text: str, *, field: str) -> str:
    """Read `set NAME VALUE`, `add NAME VALUE` or `remove NAME`; in canonical text."""
    verb, _, rest = text.strip().partition(" ")
    name, blank, value = rest.strip().partition(" ")
    verb = verb.lower()
    if verb not in VERBS or (verb == "remove") is bool(blank):
        expected = "'set NAME VALUE', 'add NAME VALUE' or 'remove NAME'"
        raise InvalidValue(field, text[:60], expected)
    found = f"{verb} {parse_field_name(name.removesuffix(':'), field=field)}"
    return found if verb == "remove" else f"{found} {parse_field_value(value, field=field)}"


def header_action(canonical: str) -> HeaderAction:
    """What `parse_header_action` wrote."""
    return HeaderAction(*canonical.split(" ", 2))
