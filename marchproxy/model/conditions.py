"""What a mapping may want of a request beside its host and path, as operators write it."""

import re
from typing import NamedTuple

from marchproxy.model.errors import InvalidValue
from marchproxy.model.httpfields import MAX_VALUE, parse_field_name, parse_field_value

ABSENT = "!"
_METHOD = re.compile(r"[A-Z][A-Z0-9-]{0,31}")
_UNSERVED = frozenset({"CONNECT", "TRACE"})


class Condition(NamedTuple):
    """One header, or one parameter of the query."""

    name: str
    """Of a header in lower case."""
    value: str | None = None
    """None: whatever it is."""
    absent: bool = False
    """There must be none of that name."""


def parse_method(text: str, *, field: str) -> str:
    """Read a method of HTTP; in upper case, as all of them are."""
    method = text.strip().upper()
    if not _METHOD.fullmatch(method):
        raise InvalidValue(field, text, "a method such as GET or POST")
    if method in _UNSERVED:
        raise InvalidValue(field, method, "another method: this one is never passed on")
    return method


def parse_header_condition(text: str, *, field: str) -> str:
    """Read `NAME: VALUE`, `NAME` for any value, or `!NAME` for none; in canonical text."""
    name, colon, value = text.partition(":")
    if colon:
        found = parse_field_name(name, field=field)
        return f"{found}: {parse_field_value(value, field=field)}"
    absent = ABSENT if text.strip().startswith(ABSENT) else ""
    return absent + parse_field_name(text.strip().removeprefix(absent), field=field)


def parse_query_condition(text: str, *, field: str) -> str:
    """Read `NAME=VALUE`, `NAME` for any value, or `!NAME` for none; as they are without escapes."""
    said = text.strip()
    name, _, _ = said.removeprefix(ABSENT).partition("=")
    plain = bool(name) and said.isprintable() and len(said) <= MAX_VALUE and not set(name) & set("&;#[]")
    if not plain or (said.startswith(ABSENT) and "=" in said):
        expected = "NAME=VALUE, NAME for any value, or !NAME for none, without escapes"
        raise InvalidValue(field, text[:60], expected)
    return said


def header_condition(canonical: str) -> Condition:
    """What `parse_header_condition` wrote."""
    name, colon, value = canonical.partition(": ")
    return Condition(name, value) if colon else _bare(canonical)


def query_condition(canonical: str) -> Condition:
    """What `parse_query_condition` wrote."""
    name, equals, value = canonical.partition("=")
    return Condition(name, value) if equals else _bare(canonical)


def _bare(canonical: str) -> Condition:
    absent = canonical.startswith(ABSENT)
    return Condition(canonical.removeprefix(ABSENT) if absent else canonical, None, absent)
