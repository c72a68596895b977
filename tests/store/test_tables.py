import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydal._globals import THREAD_LOCAL

import marchproxy.store
from marchproxy.store.store import Store
from marchproxy.store.tables import bind

SOURCES = Path(marchproxy.store.__file__).parent
FIELDS = {
    "migration": {"number", "name", "time"},
    "revision": {"number", "time", "author", "message", "sha256"},
    "change": {"revision", "kind", "cluster", "name", "before", "after"},
    "cluster": {"name"},
    "trial": {"revision", "previous", "seconds", "deadline", "boot", "uptime"},
    "cluster_key": {"cluster", "hash", "created", "expires"},
}


def test_pydal_s_tables_are_those_of_the_database(store: Store) -> None:
    """Migrations made the one, `tables.py` describes the other."""
    with store._database.writing() as dal:
        described = {table._tablename: set(table.fields) for table in dal}
    names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    found = {
        name: {column[1] for column in store._database.query(f'PRAGMA table_info("{name}")')}
        for (name,) in store._database.query(names)
    }
    assert described == found
    assert found.keys() >= FIELDS.keys()


def test_every_column_has_a_validator(store: Store) -> None:
    with store._database.writing() as dal:
        bare = [f"{field}" for table in dal for field in table if field.type != "id" and not field.requires]
    assert bare == []


def test_nothing_is_written_past_the_validators() -> None:
    bare = re.compile(r"\.(insert|bulk_insert|update|update_naive|update_record|update_or_insert)\(")
    found = [
        f"{path.name}: {line}"
        for path in SOURCES.glob("*.py")
        for line in path.read_text().splitlines()
        if bare.search(line)
    ]
    assert found == []


GOOD: dict[str, dict[str, Any]] = {
    "revision": {
        "number": 1,
        "time": datetime(2026, 1, 1),
        "author": "ada",
        "message": "it's 'quoted'",
        "sha256": "0" * 64,
    },
    "change": {
        "revision": 1,
        "kind": "service",
        "cluster": None,
        "name": "web",
        "before": None,
        "after": "{}",
    },
    "cluster_key": {"cluster": 1, "hash": "0" * 64, "created": datetime(2026, 1, 1), "expires": None},
    "trial": {
        "revision": 2,
        "previous": 1,
        "seconds": 60,
        "deadline": datetime(2026, 1, 1),
        "boot": "5f0c",
        "uptime": 77,
    },
    "migration": {"number": 1, "name": "first", "time": datetime(2026, 1, 1)},
    "cluster": {"name": "lab"},
}


@pytest.mark.parametrize("table", GOOD)
def test_what_belongs_into_a_table(store: Store, table: str) -> None:
    with store._database.writing() as dal:
        assert dal[table]._validate_fields(GOOD[table]) == ({}, GOOD[table])


@pytest.mark.parametrize(
    ("table", "field", "value"),
    [
        ("revision", "number", 0),
        ("revision", "number", "one"),
        ("revision", "time", datetime(2026, 1, 1, tzinfo=UTC)),
        ("revision", "time", datetime(2026, 1, 1, microsecond=1)),
        ("revision", "time", "2026-01-01"),
        ("revision", "author", ""),
        ("revision", "author", "x" * 65),
        ("revision", "message", "two\nlines"),
        ("revision", "message", None),
        ("revision", "sha256", "0" * 63),
        ("revision", "sha256", "G" * 64),
        ("change", "revision", None),
        ("change", "kind", "thing"),
        ("change", "cluster", "a b"),
        ("change", "name", ""),
        ("change", "before", "[]"),
        ("change", "after", "not JSON"),
        ("trial", "revision", 0),
        ("trial", "seconds", 0),
        ("trial", "deadline", datetime(2026, 1, 1, microsecond=1)),
        ("trial", "boot", ""),
        ("trial", "uptime", "soon"),
        ("cluster_key", "cluster", 0),
        ("cluster_key", "hash", "short"),
        ("cluster_key", "expires", "never"),
        ("migration", "name", "two words"),
        ("cluster", "name", "a/b"),
        ("cluster", "colour", "red"),
    ],
)
def test_what_does_not(store: Store, table: str, field: str, value: object) -> None:
    with store._database.writing() as dal:
        errors, _ = dal[table]._validate_fields(GOOD[table] | {field: value})
    assert list(errors) == [field]


def test_pydal_keeps_nothing_alive(state_dir: Path) -> None:
    """It remembers every DAL of a thread, and the last hundred statements with what operators wrote."""
    with Store.open(state_dir, create=True) as store:
        store.create_cluster_key("default")
        bind(store._database._location)
    assert not any(THREAD_LOCAL._pydal_db_instances_.values())
    assert not any("cluster_key" in sql for sql, _ in getattr(THREAD_LOCAL, "_pydal_timings_", []))
    held = [name for name, value in vars(THREAD_LOCAL).items() if value is not None]
    assert not [name for name in held if name.startswith(("_pydal_connection", "_pydal_cursor"))]
