"""Writing, all of it through pydal's validating calls. Callers hold a writing transaction open."""

from collections.abc import Iterable, Sequence
from itertools import batched, groupby
from typing import TYPE_CHECKING, Any

from marchproxy.model.change import Change, Kind
from marchproxy.model.documents import Document
from marchproxy.model.errors import InvalidValue
from marchproxy.store.revision import Revision
from marchproxy.store.rows import dump, to_row

if TYPE_CHECKING:
    from pydal import DAL
    from pydal.objects import Query, Table

_BATCH = 500
"""Rows that one statement removes. The database has to parse their names."""


def write_revision(dal: "DAL", revision: Revision, changes: Sequence[Change]) -> None:
    """Record a revision, and make the tables what it says."""
    number = insert(
        dal.revision,
        number=revision.number,
        time=revision.time.replace(tzinfo=None),
        author=revision.author,
        message=revision.message,
        sha256=revision.sha256,
    )
    for change in changes:
        insert(
            dal.change,
            revision=number,
            kind=change.kind.value,
            cluster=change.cluster or None,
            name=change.name,
            before=_text(change.before),
            after=_text(change.after),
        )
    _apply(dal, changes)


def insert(table: "Table", **values: object) -> int:
    """Add a row and return its id. Raises `InvalidValue` with what the column's validator said."""
    outcome = table.validate_and_insert(**values)
    _refuse(outcome["errors"], values)
    return int(outcome["id"])


def update(dal: "DAL", query: "Query", /, **values: object) -> None:
    """Change the rows that the query finds. Raises `InvalidValue` with what the column's validator said."""
    _refuse(dal(query).validate_and_update(**values)["errors"], values)


def _refuse(errors: dict[str, str], values: dict[str, Any]) -> None:
    for column, expected in errors.items():
        raise InvalidValue(column, values[column], expected.removeprefix("expected "))


def _apply(dal: "DAL", changes: Iterable[Change]) -> None:
    """Bring the tables to what the changes say; `diff` puts those of one kind and cluster side by side."""
    for (kind, cluster), group in groupby(changes, key=lambda change: (change.kind, change.cluster)):
        table, owner, rows = _scope(dal, kind, cluster)
        gone = []
        for change in group:
            if change.after is None:
                gone.append(change.name)
            elif change.before is None:
                insert(table, **owner, **to_row(kind, change.after))
            else:
                update(dal, rows & (table.name == change.name), **to_row(kind, change.after))
        for some in batched(gone, _BATCH):
            dal(rows & table.name.belongs(some)).delete()


def _scope(dal: "DAL", kind: Kind, cluster: str) -> "tuple[Table, dict[str, int], Query]":
    """A table, and what ties its rows to a cluster: as values to insert, and as a condition to find them."""
    table = dal[kind]
    if not cluster:
        return table, {}, table.id > 0
    owner = dal(dal.cluster.name == cluster).select(dal.cluster.id).first().id
    return table, {"cluster": owner}, table.cluster == owner


def _text(document: Document | None) -> str | None:
    return None if document is None else dump(document)
