import sqlite3

import pytest

from marchproxy.model.errors import MarchproxyError, NotFound, NotPermitted
from marchproxy.store import errors
from marchproxy.store.errors import (
    StoreCorrupt,
    StoreError,
    StoreForbidden,
    StoreFull,
    StoreLocked,
    StoreMissing,
    StoreReadOnly,
    explain,
    last_line,
)

LABEL = "/state/marchproxy.db"
CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


def test_one_base_lets_a_front_end_catch_them_all() -> None:
    own = [kind for kind in CLASSES if kind.__module__ == errors.__name__]
    assert len(own) >= 10
    assert all(issubclass(kind, StoreError) and issubclass(kind, MarchproxyError) for kind in own)


def test_exit_codes_follow_from_the_classes() -> None:
    assert issubclass(StoreMissing, NotFound)
    assert issubclass(StoreReadOnly, NotPermitted)
    assert issubclass(StoreForbidden, NotPermitted)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY, StoreLocked),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreLocked),
        (sqlite3.SQLITE_LOCKED, StoreLocked),
        (sqlite3.SQLITE_READONLY_DIRECTORY, StoreReadOnly),
        (sqlite3.SQLITE_CANTOPEN, StoreForbidden),
        (sqlite3.SQLITE_FULL, StoreFull),
        (sqlite3.SQLITE_CORRUPT_INDEX, StoreCorrupt),
        (sqlite3.SQLITE_NOTADB, StoreCorrupt),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreError),
        (sqlite3.SQLITE_ERROR, StoreError),
    ],
)
def test_sqlite_s_codes_have_names_of_their_own(code: int, kind: type[StoreError]) -> None:
    error = sqlite3.OperationalError("what SQLite said")
    error.sqlite_errorcode = code
    explained = explain(error, LABEL)
    assert type(explained) is kind
    assert LABEL in explained.message


def test_an_error_without_a_code_is_still_explained() -> None:
    """The module raises some itself, without asking SQLite."""
    assert explain(sqlite3.ProgrammingError("closed"), LABEL).message == f"store {LABEL!r}: closed"


class DriverError(Exception):
    """What another driver raises."""

    pgcode: str | None = None


def test_servers_say_in_their_own_way_that_they_are_locked() -> None:
    postgres = DriverError("canceling statement due to lock timeout")
    postgres.pgcode = "55P03"
    assert isinstance(explain(postgres, LABEL), StoreLocked)
    assert explain(postgres, "postgres://db/edge").hint == "try again"
    assert isinstance(explain(DriverError(1205, "Lock wait timeout exceeded"), LABEL), StoreLocked)


def test_a_driver_s_paragraph_becomes_its_last_line() -> None:
    error = DriverError("connection to server failed:\n  FATAL: no such role\n")
    assert explain(error, LABEL).message == f"store {LABEL!r}: FATAL: no such role"
    assert last_line(DriverError(1049, "Unknown database")) == "Unknown database"
    assert last_line(DriverError()) == "DriverError"
