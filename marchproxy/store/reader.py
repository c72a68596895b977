"""Reading: snapshots, revisions and what changed between them. Callers hold a transaction open."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, cast

from marchproxy.model.appliance import Settings
from marchproxy.model.change import OF_APPLIANCE, OF_CLUSTER, Change, Kind, holding, patch
from marchproxy.model.documents import Document
from marchproxy.model.errors import InvalidValue, MarchproxyError, NotFound
from marchproxy.model.snapshot import Cluster, Snapshot
from marchproxy.store.database import Database
from marchproxy.store.errors import StoreCorrupt
from marchproxy.store.revision import Revision
from marchproxy.store.rows import COLUMNS, read_instant, read_rows

_HEAD = "SELECT number, sha256, author, time, message FROM revision ORDER BY number DESC LIMIT ?"
_ONE = "SELECT number, sha256, author, time, message FROM revision WHERE number = ?"
_CHANGES = (
    'SELECT c.kind, c.cluster, c.name, c."before", c."after" FROM "change" c'
    " JOIN revision r ON c.revision = r.id WHERE r.number > ? AND r.number <= ? ORDER BY c.id"
)


_OWNERS = {Kind.CLUSTER: "id", **dict.fromkeys(OF_CLUSTER, "cluster")}
"""The column that ties a row to its cluster."""


def _select(kind: Kind) -> str:
    owner = (_OWNERS[kind],) if kind in _OWNERS else ()
    # Names of tables and of our dataclasses' fields: nothing here comes from outside.
    columns = ", ".join(f'"{name}"' for name in (*owner, *(column.name for column in COLUMNS[kind])))
    return f'SELECT {columns} FROM "{kind}"'  # noqa: S608


_SELECT = {kind: _select(kind) for kind in COLUMNS}


def read_snapshot(database: Database) -> Snapshot:
    """What the store holds. Raises `StoreCorrupt` for a row that the model cannot read."""
    try:
        heads = _by_cluster(database, Kind.CLUSTER)
        inner = {kind: _by_cluster(database, kind) for kind in OF_CLUSTER}
        clusters = [
            holding(Cluster.of(head), {kind: inner[kind].get(key, ()) for kind in OF_CLUSTER})
            for key, (head,) in heads.items()
        ]
        own = {kind: _own(database, kind) for kind in OF_APPLIANCE}
        snapshot = Snapshot(tuple(sorted(clusters, key=lambda cluster: cluster.name)))
        return holding(snapshot, own)
    except (InvalidValue, TypeError, ValueError) as error:
        raise StoreCorrupt(database.label, error) from error


def read_settings(database: Database) -> Settings:
    """The settings alone. Raises `StoreCorrupt`."""
    try:
        (settings,) = _own(database, Kind.SETTINGS)
    except (InvalidValue, TypeError, ValueError) as error:
        raise StoreCorrupt(database.label, error) from error
    return cast(Settings, settings)


def read_revisions(database: Database, limit: int) -> list[Revision]:
    """The newest revisions, newest first."""
    return [_revision(database, row) for row in database.query(_HEAD, limit)]


def read_revision(database: Database, number: int) -> Revision:
    """One revision. Raises `NotFound`."""
    rows = database.query(_ONE, number)
    if not rows:
        raise NotFound("revision", number, hint="`marchproxy revision list` shows which there are")
    return _revision(database, rows[0])


def read_changes(database: Database, after: int, until: int) -> tuple[Change, ...]:
    """What the revisions above `after` up to `until` changed, in order."""
    try:
        return tuple(_change(row) for row in database.query(_CHANGES, after, until))
    except (TypeError, ValueError) as error:
        raise StoreCorrupt(database.label, f"changes after revision {after}: {error}") from error


def advance(database: Database, snapshot: Snapshot, number: int, head: Revision) -> Snapshot:
    """The snapshot of head, from that of an older revision. What did not change stays the same objects."""
    return _patched(database, snapshot, read_changes(database, number, head.number), head)


def rebuild(database: Database, current: Snapshot, head: Revision, number: int) -> Snapshot:
    """The snapshot of an older revision, from that of head, checked against its SHA-256."""
    revision = read_revision(database, number)
    changes = reversed(read_changes(database, number, head.number))
    snapshot = _patched(database, current, [change.reversed() for change in changes], revision)
    verify(database, snapshot, revision)
    return snapshot


def verify(database: Database, snapshot: Snapshot, revision: Revision) -> None:
    """Raise `StoreCorrupt` unless the snapshot is the one that the revision was made for."""
    found = snapshot.sha256()
    if found != revision.sha256:
        why = f"revision {revision.number} was recorded with SHA-256 {revision.sha256}, and has {found}"
        raise StoreCorrupt(database.label, why)


def _patched(database: Database, start: Snapshot, changes: Iterable[Change], aim: Revision) -> Snapshot:
    try:
        return patch(start, changes)
    except MarchproxyError as error:
        why = f"revision {aim.number} cannot be rebuilt from its changes: {error}"
        raise StoreCorrupt(database.label, why) from error


def _own(database: Database, kind: Kind) -> tuple[Any, ...]:
    """What the appliance has of a kind that belongs to no cluster."""
    found = read_rows(kind, database.query(_SELECT[kind]))
    if kind is Kind.SETTINGS and len(found) != 1:
        raise ValueError("it does not hold one row of settings")
    return found


def _by_cluster(database: Database, kind: Kind) -> dict[int, tuple[Any, ...]]:
    rows: dict[int, list[Sequence[Any]]] = defaultdict(list)
    for cluster, *row in database.query(_SELECT[kind]):
        rows[cluster].append(row)
    return {cluster: read_rows(kind, held) for cluster, held in rows.items()}


def _revision(database: Database, row: Sequence[Any]) -> Revision:
    number, sha256, author, time, message = row
    try:
        return Revision(number, sha256, author, read_instant(time), message)
    except (TypeError, ValueError) as error:
        raise StoreCorrupt(database.label, f"revision {number}: {error}") from error


def _change(row: Sequence[Any]) -> Change:
    kind, cluster, name, before, after = row
    return Change(Kind(kind), cluster or "", name, _document(before), _document(after))


def _document(text: str | None) -> Document | None:
    document = None if text is None else json.loads(text)
    if not isinstance(document, dict | None):
        raise ValueError(f"{text!r} is no JSON object")
    return document
