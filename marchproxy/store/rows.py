"""Rows and documents: one column for each field of an entity, read and written the same way everywhere.

A column is its field's validator too. What it lets in is what the model reads, so no second list of rules can
drift from the first.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime
from typing import Any, get_args, get_origin

from marchproxy.model.change import ENTITIES, Kind
from marchproxy.model.documents import Document, Entity, read_entity, read_field, write_field
from marchproxy.model.errors import InvalidValue
from marchproxy.model.readers import parse_expiry

NAME_LENGTH = 63
"""Of what operators name."""
LONGEST_NAME = 255
"""Of anything that has a name: blocked host names are theirs."""

_TYPES: dict[type, str] = {bool: "boolean", int: "integer", datetime: "datetime"}
"""pydal's words for columns that are not text."""


@dataclass(frozen=True, slots=True)
class Column:
    """One field of an entity as a column; lists are JSON in text, so that any SQL shell can show a row."""

    entity: type[Entity]
    name: str
    holds: type
    """Bool, int, datetime, tuple, or str for everything else."""
    absent: object
    """The document's value that is left out because it is the default."""

    @property
    def type(self) -> str:
        """The column's type in pydal's words."""
        return _TYPES.get(self.holds, "string" if self.name in ("name", "collection") else "text")

    @property
    def read(self) -> Callable[[Any], Any] | None:
        """How the column becomes the document's value; None where it already is."""
        return _READ.get(self.holds)

    def write(self, value: Any) -> Any:
        """A document's value as the database takes it."""
        if self.holds is tuple:
            return dump(value)
        if self.holds is datetime and value is not None:
            return parse_expiry(value).replace(tzinfo=None)
        return value

    def __call__(self, value: Any, record_id: object = None) -> tuple[Any, str | None]:
        """Judge a value on its way into the table, as pydal's validators do: the value, and what is wrong."""
        try:
            held = self.read(value) if self.read is not None else value
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


_READ: dict[type, Callable[[Any], Any]] = {tuple: json.loads, bool: _read_flag, datetime: _read_expiry}


def _columns(entity: type[Entity]) -> tuple[Column, ...]:
    required = object()
    return tuple(
        Column(
            entity,
            f.name,
            _held(f.type),
            required if f.default is MISSING else write_field(f.name, f.default),
        )
        for f in fields(entity)
    )


def _held(annotation: Any) -> type:
    """What a column holds for a field of this type, `| None` aside."""
    kinds = {get_origin(kind) or kind for kind in (annotation, *get_args(annotation))}
    return next((kind for kind in (bool, int, datetime, tuple) if kind in kinds), str)


COLUMNS: dict[Kind, tuple[Column, ...]] = {kind: _columns(entity) for kind, entity in ENTITIES.items()}


def dump(value: object) -> str:
    """JSON as it stands in columns: sorted keys, no blanks."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def to_row(kind: Kind, document: Document) -> dict[str, Any]:
    """The columns of a document that the model has read; fields it leaves out are at their default."""
    return {column.name: column.write(document.get(column.name, column.absent)) for column in COLUMNS[kind]}


def read_rows(kind: Kind, rows: Iterable[Sequence[Any]]) -> tuple[Any, ...]:
    """Entities from rows in the order of `COLUMNS`, sorted by name.

    Raises `InvalidValue`, `TypeError` or `ValueError` for what no writer of ours left there.
    """
    plan = [(column.name, column.absent, column.read) for column in COLUMNS[kind]]
    found = [read_entity(ENTITIES[kind], _document(plan, row)) for row in rows]
    return tuple(sorted(found, key=lambda entity: entity.name))


def _document(plan: list[tuple[str, object, Callable[[Any], Any] | None]], row: Sequence[Any]) -> Document:
    document: Document = {}
    for (name, absent, read), raw in zip(plan, row, strict=True):
        value = read(raw) if read is not None else raw
        if value != absent:
            document[name] = value
    return document
