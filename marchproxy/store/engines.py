"""How each database product says what neither SQL nor pydal has one word for."""

from dataclasses import dataclass

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another writer before giving up."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Statements of one product. Connections commit by themselves, so a transaction is what these begin."""

    name: str
    read: str
    """Begins a transaction that sees one state throughout."""
    write: str
    """Begins a transaction that may write."""
    has_schema: str
    """Yields a row when migrations have run here before."""
    lock: str = ""
    """Where `write` does not exclude other writers: yields 1 when this connection alone may write."""
    unlock: str = ""
    """Undoes `lock` where the end of the transaction does not."""
    settings: tuple[str, ...] = ()
    """What a new connection needs."""
    drivers: tuple[str, ...] = ()
    """Python packages that pydal can use, any one of them."""
    port: int = 0
    """Where a server listens by default."""


SQLITE = Engine(
    "sqlite",
    read="BEGIN",
    # IMMEDIATE takes the write lock before the first read: a deferred transaction that reads, then writes,
    # fails when another has written between, and no timeout helps it.
    write="BEGIN IMMEDIATE",
    has_schema="SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'migration'",
    settings=(
        "PRAGMA foreign_keys = ON",
        # In WAL mode NORMAL survives kill -9 too, but may lose the last commits with the power. An operator
        # who read "revision 7" must find revision 7; one fsync for each of a few writes a day is a fair
        # price.
        "PRAGMA synchronous = FULL",
        "PRAGMA journal_mode = WAL",
    ),
)

POSTGRES = Engine(
    "postgres",
    read="BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    write="BEGIN",
    has_schema="SELECT 1 FROM information_schema.tables"
    " WHERE table_name = 'migration' AND table_schema = current_schema()",
    # An advisory lock, because before the first migration there is no table to lock. The number is any
    # constant.
    lock="SELECT 1 FROM pg_advisory_xact_lock(7237121)",
    settings=(f"SET lock_timeout = '{BUSY_TIMEOUT:g}s'",),
    drivers=("psycopg2",),
    port=5432,
)

# pydal makes tables of MySQL's three-byte UTF-8, which also folds case: a description with an emoji, or a
# second name that differs in case only, is refused with the server's own words.
MYSQL = Engine(
    "mysql",
    read="START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    write="START TRANSACTION",
    has_schema="SELECT 1 FROM information_schema.tables"
    " WHERE table_name = 'migration' AND table_schema = DATABASE()",
    lock=f"SELECT GET_LOCK('marchproxy', {BUSY_TIMEOUT:g})",
    unlock="DO RELEASE_LOCK('marchproxy')",
    settings=(
        "SET autocommit = 1",
        # Without the first, backslashes in JSON would be eaten; the second makes quoted names standard SQL.
        "SET sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES,STRICT_ALL_TABLES'",
    ),
    drivers=("MySQLdb", "pymysql"),
    port=3306,
)

ENGINES = {
    "sqlite": SQLITE,
    "postgres": POSTGRES,
    "postgresql": POSTGRES,
    "mysql": MYSQL,
    "mariadb": MYSQL,
}
"""By the names that `DB_TYPE` and the scheme of `DATABASE_URL` may have."""
