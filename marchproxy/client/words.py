"""Values as text on one line."""

import json
from collections.abc import Mapping
from typing import Any

_ITEMS = 3
"""Entries of a list shown in one cell; the rest are counted."""


def cell(value: object) -> str:
    """One value as text on one line: `-` for nothing, yes and no, the first few entries of a list."""
    if value in (None, "", []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        more = f",+{len(value) - _ITEMS}" if len(value) > _ITEMS else ""
        return ",".join(cell(item) for item in value[:_ITEMS]) + more
    if isinstance(value, dict):
        return printable(json.dumps(value, ensure_ascii=False))
    return printable(str(value))


def printable(text: str) -> str:
    """The text on one line without control characters: what others chose must not move the operator's cursor.

    Surrogates (bytes of an argument that are no UTF-8) are escaped too.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def endpoint(row: Mapping[str, Any], name: str) -> str:
    """`address:port` of the field `name`, IPv6 in brackets; the address alone where there is no port."""
    address, port = row[name], row[f"{name}_port"]
    if not port:
        return str(address)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
