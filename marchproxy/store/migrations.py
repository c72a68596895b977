"""How the schema came about: numbered steps, each committed in one transaction together with its record.

A migration, once released, is never edited. It describes its tables itself instead of borrowing them from
`tables.py`, which always describes the newest schema. MySQL commits every change of a table at once, so there
a step that fails half way has to be cleaned up by hand; SQLite and PostgreSQL undo it.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from marchproxy.store.database import Database
from marchproxy.store.errors import SchemaTooNew, SchemaTooOld
from marchproxy.store.writer import insert

if TYPE_CHECKING:
    from pydal import DAL, Field

type Step = Callable[["DAL"], None]


def first_tables(dal: "DAL") -> None:
    """Clusters, services, mappings, interfaces, and the revisions they came from."""
    from pydal import Field

    name, text = 63, "text"
    _create(
        dal, "migration", Field("number", "integer", unique=True), Field("name", length=name), _time("time")
    )
    _create(
        dal,
        "revision",
        Field("number", "integer", notnull=True, unique=True),
        _time("time"),
        Field("author", length=64, notnull=True),
        Field("message", length=500, notnull=True),
        Field("sha256", length=64, notnull=True),
    )
    _create(
        dal,
        "change",
        _reference("revision", "RESTRICT"),
        Field("kind", length=name, notnull=True),
        Field("cluster", length=name),
        Field("name", length=name, notnull=True),
        Field("before", text),
        Field("after", text),
    )
    _create(dal, "cluster", Field("name", length=name, notnull=True, unique=True))
    _create(
        dal,
        "cluster_key",
        _reference("cluster", "CASCADE"),
        Field("hash", length=64, notnull=True, unique=True),
        _time("created"),
        Field("expires", "datetime"),
    )
    _create(
        dal,
        "service",
        _reference("cluster", "RESTRICT"),
        Field("name", length=name, notnull=True),
        Field("addresses", text, notnull=True),
        Field("port", "integer"),
        Field("protocol", text),
        Field("collection", length=name),
        Field("tags", text, notnull=True),
        Field("auth", text, notnull=True),
        Field("weight", "integer", notnull=True),
        Field("tls", "boolean", notnull=True),
        Field("health", text, notnull=True),
        Field("health_interval", "integer"),
        Field("description", text, notnull=True),
    )
    _create(
        dal,
        "mapping",
        _reference("cluster", "RESTRICT"),
        Field("name", length=name, notnull=True),
        Field("sources", text, notnull=True),
        Field("destinations", text, notnull=True),
        Field("protocols", text, notnull=True),
        Field("ports", text, notnull=True),
        Field("listen", text),
        Field("priority", "integer", notnull=True),
        Field("action", text, notnull=True),
        Field("host", text),
        Field("path_prefix", text),
        Field("auth_required", "boolean", notnull=True),
        Field("expires", "datetime"),
        Field("description", text, notnull=True),
    )
    _create(
        dal,
        "interface",
        Field("name", length=name, notnull=True, unique=True),
        Field("role", text, notnull=True),
        Field("mode", text, notnull=True),
    )
    _index(dal, "service", "cluster", "name", unique=True)
    _index(dal, "mapping", "cluster", "name", unique=True)
    _index(dal, "change", "revision")


MIGRATIONS: tuple[Step, ...] = (first_tables,)
"""In order; the position counted from 1 is a migration's number, the function's name its name."""


def migrate(database: Database) -> None:
    """Run what has not run yet. Two processes may do this at once: each step runs in one of them."""
    for number, step in enumerate(MIGRATIONS, 1):
        if schema_version(database) >= number:
            continue
        with database.writing() as dal:
            if schema_version(database) < number:
                step(dal)
                _record(dal, number, step.__name__)


def schema_version(database: Database) -> int:
    """The number of the last migration that ran here; 0 where there is no schema yet."""
    if not database.has_schema():
        return 0
    return int(database.query("SELECT max(number) FROM migration")[0][0] or 0)


def check_schema(database: Database) -> int:
    """The schema's version, refusing one from the future, and one that a reader would have to migrate."""
    found, known = schema_version(database), len(MIGRATIONS)
    if found > known:
        raise SchemaTooNew(database.label, found, known)
    if 0 < found < known and database.read_only:
        raise SchemaTooOld(database.label, found, known)
    return found


def _record(dal: "DAL", number: int, name: str) -> None:
    time = datetime.now(UTC).replace(microsecond=0, tzinfo=None)
    insert(dal.migration, number=number, name=name, time=time)


def _create(dal: "DAL", name: str, *fields: "Field") -> None:
    """Create a table with pydal's own words for the columns, which are right for every database."""
    adapter = dal._adapter
    adapter.execute(adapter.migrator.create_table(dal.Table(dal, name, *fields), migrate=False))


def _index(dal: "DAL", table: str, *columns: str, unique: bool = False) -> None:
    # Not Table.create_index, which commits.
    adapter = dal._adapter
    names = [dal[table][column]._rname for column in columns]
    adapter.execute(
        adapter.dialect.create_index(f"{table}_{'_'.join(columns)}", dal[table], names, unique=unique)
    )


def _time(name: str) -> "Field":
    from pydal import Field

    return Field(name, "datetime", notnull=True)


def _reference(table: str, ondelete: str) -> "Field":
    from pydal import Field

    return Field(table, f"reference {table}", notnull=True, ondelete=ondelete)
