"""The words that migrations are written in: tables, columns and rows, on every database."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydal import DAL, Field


def create(dal: "DAL", name: str, *fields: "Field") -> None:
    """Create a table with pydal's own words for the columns, which are right for every database."""
    adapter = dal._adapter
    adapter.execute(adapter.migrator.create_table(dal.Table(dal, name, *fields), migrate=False))


def add(dal: "DAL", table: str, field: "Field", value: str | int | None) -> None:
    """Add a column, and what it holds in the rows that are there.

    It may be null as far as the database knows: MySQL takes no default for a text, and its validator refuses
    null anyway.
    """
    adapter = dal._adapter
    of, column = dal[table]._rname, adapter.dialect.quote(field.name)
    adapter.execute(f"ALTER TABLE {of} ADD COLUMN {column} {adapter.types[field.type]}")
    if value is not None:
        adapter.execute(f"UPDATE {of} SET {column} = {_literal(value)}")  # noqa: S608  (our own words)


def widen(dal: "DAL", table: str, column: str, length: int) -> None:
    """Let a text that is not null be longer. SQLite holds texts of any length in any column."""
    changes = {
        "postgres": "ALTER COLUMN {} TYPE VARCHAR({})",
        "mysql": "MODIFY COLUMN {} VARCHAR({}) NOT NULL",
    }
    adapter = dal._adapter
    if adapter.dbengine in changes:
        change = changes[adapter.dbengine].format(adapter.dialect.quote(column), length)
        adapter.execute(f"ALTER TABLE {dal[table]._rname} {change}")


def fill(dal: "DAL", table: str, values: dict[str, int | str]) -> None:
    """Insert one row, whatever validators a later version has."""
    adapter = dal._adapter
    columns = ", ".join(map(adapter.dialect.quote, values))
    held = ", ".join(map(_literal, values.values()))
    adapter.execute(f"INSERT INTO {dal[table]._rname} ({columns}) VALUES ({held})")  # noqa: S608  (ours)


def _literal(value: int | str) -> str:
    return str(value) if isinstance(value, int) else f"'{value}'"


def index(dal: "DAL", table: str, *columns: str, unique: bool = False) -> None:
    """Index columns together."""
    # Not Table.create_index, which commits.
    adapter = dal._adapter
    names = [dal[table][column]._rname for column in columns]
    adapter.execute(
        adapter.dialect.create_index(f"{table}_{'_'.join(columns)}", dal[table], names, unique=unique)
    )


def time(name: str) -> "Field":
    """A column that holds an instant in UTC."""
    from pydal import Field

    return Field(name, "datetime", notnull=True)


def reference(table: str, ondelete: str) -> "Field":
    """A column that names a row of another table."""
    from pydal import Field

    return Field(table, f"reference {table}", notnull=True, ondelete=ondelete)
