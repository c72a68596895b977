from pathlib import Path

import pytest

from marchproxy.store.engines import BUSY_TIMEOUT, ENGINES, MYSQL, POSTGRES, SQLITE
from marchproxy.store.store import Store


@pytest.mark.parametrize(
    ("pragma", "value"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 2),
        ("foreign_keys", 1),
        ("busy_timeout", int(BUSY_TIMEOUT * 1000)),
    ],
)
def test_sqlite_s_settings_are_in_force(state_dir: Path, pragma: str, value: object) -> None:
    with Store.open(state_dir, create=True) as store:
        assert store._database.query(f"PRAGMA {pragma}") == [(value,)]


def test_five_seconds_are_waited_for_another_writer() -> None:
    assert BUSY_TIMEOUT == 5
    assert any("'5s'" in setting for setting in POSTGRES.settings)
    assert "5)" in MYSQL.lock


def test_the_names_that_urls_and_db_type_use() -> None:
    assert (ENGINES["sqlite"], ENGINES["postgresql"], ENGINES["mariadb"]) == (SQLITE, POSTGRES, MYSQL)
    assert {engine.name for engine in ENGINES.values()} <= ENGINES.keys()


def test_only_sqlite_needs_no_driver_and_no_port() -> None:
    assert {engine.name for engine in ENGINES.values() if not (engine.drivers and engine.port)} == {"sqlite"}
