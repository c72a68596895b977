"""The words of migrations, on a database of their own."""

import pytest
from pydal import Field

from marchproxy.store import ddl
from marchproxy.store.store import Store


def test_a_table_with_a_row_gets_a_column(store: Store) -> None:
    database = store._database
    with database.writing() as dal:
        dal.define_table("thing", Field("name"), migrate=False)
        ddl.create(dal, "thing", Field("name", length=9, notnull=True), ddl.time("made"))
        ddl.fill(dal, "thing", {"name": "x", "made": "2030-01-01 00:00:00"})
        ddl.add(dal, "thing", Field("tags", "text"), "[]")
        ddl.add(dal, "thing", Field("limit", "integer"), None)
    assert database.query('SELECT name, tags, "limit" FROM thing') == [("x", "[]", None)]


def test_an_index_holds_columns_apart(store: Store) -> None:
    with store._database.writing() as dal:
        dal.define_table("thing", Field("name"), migrate=False)
        ddl.create(dal, "thing", Field("name", length=9))
        ddl.index(dal, "thing", "name", unique=True)
    store._database.query("INSERT INTO thing (name) VALUES ('x')")
    with pytest.raises(Exception, match="UNIQUE"):
        store._database.query("INSERT INTO thing (name) VALUES ('x')")


class _Adapter:
    """Keeps statements instead of sending them to a server that is not here."""

    class dialect:
        """How the server quotes."""

        @staticmethod
        def quote(name: str) -> str:
            return f'"{name}"'

    def __init__(self, engine: str) -> None:
        self.dbengine = engine
        self.said: list[str] = []
        self.execute = self.said.append


class _Tables(dict[str, object]):
    """As much of a DAL as `widen` looks at."""

    def __init__(self, engine: str) -> None:
        super().__init__(change=type("Table", (), {"_rname": '"change"'}))
        self._adapter = _Adapter(engine)


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("sqlite", []),
        ("postgres", ['ALTER TABLE "change" ALTER COLUMN "name" TYPE VARCHAR(255)']),
        ("mysql", ['ALTER TABLE "change" MODIFY COLUMN "name" VARCHAR(255) NOT NULL']),
    ],
)
def test_a_longer_text_in_the_servers_own_words(engine: str, said: list[str]) -> None:
    tables = _Tables(engine)
    ddl.widen(tables, "change", "name", 255)
    assert tables._adapter.said == said
