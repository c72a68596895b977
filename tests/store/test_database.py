"""The connection and its transactions, and what is said when SQLite cannot do its part."""

import gc
import os
import resource
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from marchproxy.model.snapshot import Snapshot
from marchproxy.store.database import Database
from marchproxy.store.engines import SQLITE
from marchproxy.store.errors import StoreCorrupt, StoreError, StoreFull, StoreLocked, StoreReadOnly
from marchproxy.store.store import Store
from tests.store.build import appending, service

WEB = service("web")


def _content(state_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in state_dir.iterdir()}


@contextmanager
def _holding(state_dir: Path, *statements: str) -> Iterator[None]:
    """Another connection that keeps the store to itself."""
    with closing(sqlite3.connect(state_dir / "marchproxy.db", isolation_level=None)) as other:
        for statement in statements:
            other.execute(statement)
        yield


def _read_all(state_dir: Path, *, create: bool) -> None:
    with Store.open(state_dir, create=create) as store:
        store.snapshot()
        store.revisions()
        store.changes(2)


def test_a_second_writer_waits_and_then_says_that_the_store_is_locked(state_dir: Path, store: Store) -> None:
    with (
        _holding(state_dir, "BEGIN IMMEDIATE"),
        pytest.raises(StoreLocked, match="is locked by another process") as caught,
    ):
        store.replace(appending(WEB), message="no")
    assert "fuser" in caught.value.hint
    assert store.replace(appending(WEB), message="now").number == 2


def test_a_writer_does_not_keep_readers_out(state_dir: Path, store: Store) -> None:
    with _holding(state_dir, "BEGIN IMMEDIATE", "DELETE FROM cluster"):
        assert store.snapshot() == Snapshot()
        with Store.open(state_dir, timeout=0.05) as other:
            assert other.head().number == 1


def test_a_store_that_nobody_else_may_even_read(state_dir: Path, store: Store) -> None:
    store.close()
    exclusive = ("PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE")
    for read_only in (True, False):
        with _holding(state_dir, *exclusive), pytest.raises(StoreLocked):
            Store.open(state_dir, read_only=read_only, timeout=0.05)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"not a database at all " * 500, id="something-else"),
        pytest.param(lambda content: b"\0" * len(content), id="zeros"),
        pytest.param(lambda content: content[:16] + b"\xff" * 84 + content[100:], id="header"),
        pytest.param(lambda content: content[: len(content) // 2], id="cut-in-half"),
        pytest.param(lambda content: content[:4096] + os.urandom(len(content) - 4096), id="pages"),
        pytest.param(lambda content: content.replace(b"CREATE TABLE", b"CREATE \xffABLE"), id="schema"),
    ],
)
def test_a_damaged_file_is_named_and_left_as_it_is(
    state_dir: Path, store: Store, damage: Callable[[bytes], bytes]
) -> None:
    store.replace(appending(WEB), message="web")
    store.close()
    path = state_dir / "marchproxy.db"
    path.write_bytes(damage(path.read_bytes()))
    before = _content(state_dir)
    for create in (False, True):
        with pytest.raises(StoreCorrupt, match="is damaged") as caught:
            _read_all(state_dir, create=create)
        assert "restore" in caught.value.hint
    assert _content(state_dir) == before


def test_damage_in_the_middle_of_reading_is_not_an_empty_answer(state_dir: Path, store: Store) -> None:
    """pydal's own `executesql` would swallow it."""
    for number in range(200):
        store.replace(appending(service(f"s{number:03}", description="x" * 400)), message="add")
    store.close()
    path = state_dir / "marchproxy.db"
    content = bytearray(path.read_bytes())
    with closing(sqlite3.connect(path)) as inside:
        [(page,)] = inside.execute("SELECT rootpage FROM sqlite_master WHERE name = 'service'")
    # The last child that the table's root page names: reading begins well and then fails.
    root = (page - 1) * 4096
    last = int.from_bytes(content[root + 8 : root + 12], "big")
    content[(last - 1) * 4096 : last * 4096] = b"\xff" * 4096
    path.write_bytes(content)
    with Store.open(state_dir) as opened, pytest.raises(StoreCorrupt):
        opened.snapshot()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return filler


@pytest.mark.requires("root")
def test_a_full_disk_is_named_and_loses_nothing(small_disk: Path) -> None:
    with Store.open(small_disk / "state", create=True) as store:
        head = store.replace(appending(WEB), message="web")
        filler = _fill(small_disk)
        big = service("big", description="x" * 500, tags=[f"t{number}" for number in range(5000)])
        with pytest.raises(StoreFull, match="no space left"):
            store.replace(appending(big), message="no")
        assert store.verify() == head
        with Store.open(small_disk / "state", read_only=True) as other:
            assert other.verify() == head
        filler.unlink()
        assert store.replace(appending(big), message="now").number == 3


@pytest.mark.requires("root")
def test_a_store_cannot_be_made_on_a_full_disk(small_disk: Path) -> None:
    (small_disk / "state").mkdir()
    filler = _fill(small_disk)
    with pytest.raises(StoreFull):
        Store.open(small_disk / "state", create=True)
    filler.unlink()
    with Store.open(small_disk / "state", create=True) as store:
        assert store.created


@pytest.mark.requires("root")
def test_a_read_only_file_system_is_read_and_not_written(small_disk: Path) -> None:
    state_dir = small_disk / "state"
    with Store.open(state_dir, create=True) as store:
        head = store.replace(appending(WEB), message="web")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for create in (False, True):
        with pytest.raises(StoreReadOnly, match="cannot be written") as caught:
            Store.open(state_dir, create=create)
        assert "findmnt" in caught.value.hint
    with pytest.raises(StoreReadOnly):
        Store.open(small_disk / "other", create=True)
    with Store.open(state_dir, read_only=True) as store:
        assert store.verify() == head
        assert store.snapshot_at(1) == Snapshot()


def test_a_limit_on_file_sizes_is_an_error_like_others(state_dir: Path, store: Store) -> None:
    """Writing fails with EFBIG then, which SQLite knows no name for."""
    head = store.head()
    big = service("big", tags=[f"t{number}" for number in range(50_000)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StoreError, match=r"marchproxy\.db"):
            store.replace(appending(big), message="no")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.verify() == head
    assert store.replace(appending(WEB), message="now").number == 2


def _insert_and_fail(database: Database) -> None:
    with database.transaction(write=True):
        database.query("INSERT INTO cluster (name) VALUES (?)", "lab")
        raise ZeroDivisionError


def test_a_transaction_is_all_or_nothing(store: Store) -> None:
    database = store._database
    with pytest.raises(ZeroDivisionError):
        _insert_and_fail(database)
    with database.transaction(write=True):
        database.query("INSERT INTO cluster (name) VALUES (?)", "edge")
    assert database.query("SELECT name FROM cluster ORDER BY name") == [("default",), ("edge",)]


def test_a_reading_transaction_sees_one_moment(state_dir: Path, store: Store) -> None:
    database = store._database
    with database.transaction(), Store.open(state_dir) as other:
        before = database.query("SELECT count(*) FROM revision")
        other.replace(appending(WEB), message="web")
        assert database.query("SELECT count(*) FROM revision") == before
    assert database.query("SELECT count(*) FROM revision") == [(2,)]


def test_where_a_transaction_excludes_nobody_a_lock_does(store: Store) -> None:
    """As PostgreSQL and MySQL need it, said to SQLite: the statement yields 1, or somebody else writes."""
    location = store._database._location
    said: list[str] = []
    for answer in (1, 0):
        locking = replace(SQLITE, lock=f"SELECT {answer}", unlock="SELECT 'unlocked'")
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            connection.set_trace_callback(said.append)
            database = Database(replace(location, engine=locking), connection)
            with nullcontext() if answer else pytest.raises(StoreLocked), database.transaction(write=True):
                database.query("SELECT 'written'")
    assert said == [
        *("BEGIN IMMEDIATE", "SELECT 1", "SELECT 'written'", "COMMIT", "SELECT 'unlocked'"),
        *("BEGIN IMMEDIATE", "SELECT 0", "ROLLBACK", "SELECT 'unlocked'"),
    ]


def test_foreign_keys_are_enforced(store: Store) -> None:
    store.replace(appending(WEB), message="web")
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        store._database.query("DELETE FROM cluster")


def test_statements_that_are_wrong_are_store_errors(store: Store) -> None:
    with pytest.raises(StoreError, match="no such table"):
        store._database.query("SELECT * FROM nowhere")


@pytest.mark.parametrize("enabled", [True, False])
def test_collection_is_as_it_was_after_a_transaction(store: Store, enabled: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with store._database.transaction():
            assert not gc.isenabled()
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()
