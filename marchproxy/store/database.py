"""One connection, and the one way to use it: inside a transaction."""

import gc
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from os import ST_RDONLY, statvfs
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from marchproxy.store.engines import SQLITE
from marchproxy.store.errors import StoreClosed, StoreCorrupt, StoreError, StoreLocked, StoreReadOnly, explain
from marchproxy.store.location import Location, check_file

if TYPE_CHECKING:
    from pydal import DAL


class Database:
    """A connection that any thread may use, one at a time.

    SQLite's connections do not survive a fork: open a new one on the other side.
    """

    def __init__(
        self,
        location: Location,
        connection: Any,
        *,
        read_only: bool = False,
        errors: type[Exception] = sqlite3.Error,
        dal: "DAL | None" = None,
    ) -> None:
        """Take over an open connection that commits by itself; `errors` is what its driver raises."""
        self.label = location.label
        self.read_only = read_only
        self._location = location
        self._engine = location.engine
        self._connection = connection
        self._errors = errors
        self._dal = dal
        self._lock = RLock()
        self._inside = False

    @classmethod
    def open_file(cls, location: Location, path: Path, *, read_only: bool, timeout: float) -> Self:
        """Open an SQLite file; `timeout` is how many seconds to wait for another process."""
        check_file(path, read_only=read_only)
        try:
            connection = sqlite3.connect(
                _sqlite_uri(path, read_only=read_only),
                uri=True,
                timeout=timeout,
                # The module's own idea of transactions would begin deferred ones behind our back.
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise explain(error, location.label) from error
        return cls(location, connection, read_only=read_only)

    def close(self) -> None:
        """Give the connection back. May be called again."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def prepare(self) -> None:
        """Put the engine's settings in force."""
        for setting in self._engine.settings:
            self.query(setting)

    def has_schema(self) -> bool:
        """Whether migrations have run here before."""
        return bool(self.query(self._engine.has_schema))

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement, `?` standing for each value, and return its rows.

        Not pydal's `executesql`, which returns None when the database fails while rows are fetched.
        """
        with self._lock, self._explained():
            cursor = self._open().cursor()
            try:
                cursor.execute(sql if self._engine is SQLITE else sql.replace("?", "%s"), values)
                return list(cursor.fetchall()) if cursor.description else []
            finally:
                cursor.close()

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[None]:
        """All of it or nothing. A writing transaction has no other writer beside it, from here to its end.

        Raises `StoreLocked` when another writer does not finish within the busy timeout.
        """
        with self._lock, _collection_paused(), self._explained():
            self._begin(write)
            try:
                self._exclude_others(write)
                yield
                self.query("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            finally:
                self._inside = False
                if write and self._engine.unlock:
                    self.query(self._engine.unlock)

    @contextmanager
    def writing(self) -> "Iterator[DAL]":
        """A writing transaction, with pydal's tables on this connection."""
        adapter = self._tables()._adapter
        with self.transaction(write=True):
            # pydal looks up its connection by thread, and opens another one where it finds none.
            adapter.set_connection(self._connection)
            try:
                yield self._dal
            finally:
                adapter._clean_tlocals()

    def _begin(self, write: bool) -> None:
        if self._inside:
            raise StoreError(f"store {self.label!r} is in the middle of a transaction")
        if write and self.read_only:
            raise StoreReadOnly(self.label, hint="it was opened for reading only")
        self.query(self._engine.write if write else self._engine.read)
        self._inside = True

    def _exclude_others(self, write: bool) -> None:
        if write and self._engine.lock and self.query(self._engine.lock) != [(1,)]:
            raise StoreLocked(self.label)

    def _roll_back(self) -> None:
        # After an error such as a full disk SQLite may have rolled back by itself; it refuses to do so twice.
        if self._engine is not SQLITE or self._connection.in_transaction:
            self.query("ROLLBACK")

    def _tables(self) -> "DAL":
        if self._dal is None:
            from marchproxy.store.tables import bind

            self._dal = bind(self._location)
        return self._dal

    def _open(self) -> Any:
        if self._connection is None:
            raise StoreClosed(self.label)
        return self._connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise explain(error, self.label) from error
        except UnicodeDecodeError as error:
            # What SQLite says about a damaged schema quotes it, and the driver takes it for text.
            raise StoreCorrupt(self.label, f"what should be text is none ({error.reason})") from error


def _sqlite_uri(path: Path, *, read_only: bool) -> str:
    """Never `mode=rwc`: a store that is missing is an error and not an empty store."""
    uri = f"file:{quote(str(path))}?mode={'ro' if read_only else 'rw'}"
    journal = path.with_name(path.name + "-wal")
    if read_only and statvfs(path).f_flag & ST_RDONLY and not (journal.exists() and journal.stat().st_size):
        # A reader in WAL mode writes too, to the shared index beside the file. Where it cannot, SQLite reads
        # only what is declared not to change; without a journal that is the whole store
        # (https://sqlite.org/wal.html).
        uri += "&immutable=1"
    return uri


@contextmanager
def _collection_paused() -> Iterator[None]:
    """Reading a large store makes a million objects that stay; collections would walk them for nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
