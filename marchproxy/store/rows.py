"""Rows and documents: one column for each field of an entity, read and written the same way everywhere.

A column is its field's validator too. What it lets in is what the model reads, so no second list of rules can
drift from the first.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from marchproxy.model.change import Kind
from marchproxy.model.documents import (
    Document,
    Entity,
    parse_expiry,
    read_field,
    read_interface,
    read_mapping,
    read_service,
    write_field,
)
from marchproxy.model.entities import Interface, Mapping, Service
from marchproxy.model.errors import InvalidValue

NAME_LENGTH = 63

_LISTS = {"addresses", "tags", "sources", "destinations", "protocols"}
_FLAGS = {"tls", "auth_required"}
_NUMBERS = {"port", "weight", "health_interval", "priority"}
_INSTANTS = {"expires"}
_NAMES = {"name", "collection"}


@dataclass(frozen=True, slots=True)
class Column:
    """One field of an entity as a column; lists are JSON in text, so that any SQL shell can show a row."""

    entity: type[Entity]
    name: str
    absent: object
    """The document's value that is left out because it is the default."""

    @property
    def type(self) -> str:
        """The column's type in pydal's words."""
        if self.name in _FLAGS:
            return "boolean"
        if self.name in _NUMBERS:
            return "integer"
        if self.name in _INSTANTS:
            return "datetime"
        return "string" if self.name in _NAMES else "text"

    def write(self, value: Any) -> Any:
        """A document's value as the database takes it."""
        if self.name in _LISTS:
            return dump(value)
        if self.name in _INSTANTS and value is not None:
            return parse_expiry(value).replace(tzinfo=None)
        return value

    def __call__(self, value: Any, record_id: object = None) -> tuple[Any, str | None]:
        """Judge a value on its way into the table, as pydal's validators do: the value, and what is wrong."""
        try:
            read = READ.get(self.name)
            held = read(value) if read is not None else value
            if held != self.absent:
                read_field(self.entity, self.name, held)
        except (InvalidValue, TypeError, ValueError) as error:
            return value, error.args[0]
        return value, None


def _read_flag(value: Any) -> bool:
    # pydal writes booleans as 'T' and 'F' in a CHAR(1), on every database.
    return value is True or value == "T"


def read_instant(value: Any) -> datetime:
    """An instant from a column, where it has no zone: SQLite hands out text, servers a datetime."""
    instant = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return instant.replace(tzinfo=UTC)


def _read_expiry(value: Any) -> str | None:
    return None if value is None else write_field("expires", read_instant(value))


READ: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_LISTS, json.loads),
    **dict.fromkeys(_FLAGS, _read_flag),
    **dict.fromkeys(_INSTANTS, _read_expiry),
}
"""How the columns of these names become a document's values; all others already are."""


def _columns(entity: type[Entity]) -> tuple[Column, ...]:
    required = object()
    return tuple(
        Column(entity, f.name, required if f.default is MISSING else write_field(f.name, f.default))
        for f in fields(entity)
    )


COLUMNS: dict[Kind, tuple[Column, ...]] = {
    Kind.SERVICE: _columns(Service),
    Kind.MAPPING: _columns(Mapping),
    Kind.INTERFACE: _columns(Interface),
}

_ENTITIES: dict[Kind, Callable[[object], Entity]] = {
    Kind.SERVICE: read_service,
    Kind.MAPPING: read_mapping,
    Kind.INTERFACE: read_interface,
}


def dump(value: object) -> str:
    """JSON as it stands in columns: sorted keys, no blanks."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def to_row(kind: Kind, document: Document) -> dict[str, Any]:
    """The columns of a document that the model has read; fields it leaves out are at their default."""
    if kind is Kind.CLUSTER:
        return {"name": document["name"]}
    return {column.name: column.write(document.get(column.name, column.absent)) for column in COLUMNS[kind]}


def read_rows(kind: Kind, rows: Iterable[Sequence[Any]]) -> tuple[Any, ...]:
    """Entities from rows in the order of `COLUMNS`, sorted by name.

    Raises `InvalidValue`, `TypeError` or `ValueError` for what no writer of ours left there.
    """
    plan = [(column.name, column.absent, READ.get(column.name)) for column in COLUMNS[kind]]
    make = _ENTITIES[kind]
    found = [make(_document(plan, row)) for row in rows]
    return tuple(sorted(found, key=lambda entity: entity.name))


def _document(plan: list[tuple[str, object, Callable[[Any], Any] | None]], row: Sequence[Any]) -> Document:
    document: Document = {}
    for (name, absent, read), raw in zip(plan, row, strict=True):
        value = read(raw) if read is not None else raw
        if value != absent:
            document[name] = value
    return document
