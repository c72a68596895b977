import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from marchproxy.model.appliance import DEFAULT_SETTINGS
from marchproxy.model.snapshot import Snapshot
from marchproxy.store import migrations
from marchproxy.store.errors import SchemaTooNew, SchemaTooOld
from marchproxy.store.migrations import MIGRATIONS, Step, first_tables, gateway_tables, schema_version
from marchproxy.store.store import Store
from tests.store.build import appending, service


def _tables(store: Store) -> set[str]:
    return {name for (name,) in store._database.query("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _records(store: Store) -> list[tuple[Any, ...]]:
    return store._database.query("SELECT number, name FROM migration ORDER BY number")


def _add_steps(monkeypatch: pytest.MonkeyPatch, *steps: Step) -> None:
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, *steps))


def test_each_migration_has_its_record(store: Store) -> None:
    assert _records(store) == [(number, step.__name__) for number, step in enumerate(MIGRATIONS, 1)]


def test_released_migrations_keep_their_place() -> None:
    assert MIGRATIONS[:2] == (first_tables, gateway_tables)


def test_no_file_of_pydal_s_own_migrations_appears(state_dir: Path, store: Store) -> None:
    store.replace(appending(service("web")), message="web")
    store.close()
    assert [path.name for path in state_dir.iterdir()] == ["marchproxy.db"]


def test_a_step_that_fails_half_way_leaves_nothing_and_can_be_repeated(
    state_dir: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()
    runs: list[str] = []

    def good(dal: Any) -> None:
        runs.append("good")
        dal.executesql("CREATE TABLE good (name TEXT)")

    def bad(dal: Any) -> None:
        runs.append("bad")
        dal.executesql("CREATE TABLE half (name TEXT)")
        dal.executesql("ALTER TABLE service ADD COLUMN half TEXT")
        if runs.count("bad") == 1:
            raise RuntimeError("power went")

    _add_steps(monkeypatch, good, bad)
    with pytest.raises(RuntimeError):
        Store.open(state_dir)
    with monkeypatch.context() as before:
        before.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, good))
        with Store.open(state_dir) as opened:
            assert _records(opened)[-1] == (len(MIGRATIONS) + 1, "good")
            assert "half" not in _tables(opened)
            opened._database.query("INSERT INTO good VALUES ('kept')")
    with Store.open(state_dir) as opened:
        assert [name for _, name in _records(opened)][-2:] == ["good", "bad"]
        assert "half" in _tables(opened)
        assert opened._database.query("SELECT name FROM good") == [("kept",)]
    assert runs == ["good", "bad", "bad"]
    with Store.open(state_dir):
        assert len(runs) == 3, "nothing runs twice"


def test_the_first_step_that_fails_leaves_no_store(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(dal: Any) -> None:
        first_tables(dal)
        raise RuntimeError("power went")

    with monkeypatch.context() as broken:
        broken.setattr(migrations, "MIGRATIONS", (fails,))
        with pytest.raises(RuntimeError):
            Store.open(state_dir, create=True)
    with Store.open(state_dir, create=True) as store:
        assert store.created
        assert store.verify().number == 1


def test_of_two_processes_one_migrates(
    state_dir: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()
    runs: list[str] = []
    both = threading.Barrier(2)

    def step(dal: Any) -> None:
        runs.append("step")
        dal.executesql("CREATE TABLE once (name TEXT)")

    def open_store() -> None:
        both.wait()
        Store.open(state_dir).close()

    _add_steps(monkeypatch, step)
    threads = [threading.Thread(target=open_store) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runs == ["step"]


@pytest.mark.parametrize("how", [{}, {"create": True}, {"read_only": True}])
def test_a_newer_schema_is_not_touched(state_dir: Path, store: Store, how: dict[str, bool]) -> None:
    future = len(MIGRATIONS) + 7
    store._database.query(
        "INSERT INTO migration (number, name, time) VALUES (?, 'later', '2030-01-01')", future
    )
    store.close()
    before = (state_dir / "marchproxy.db").read_bytes()
    with pytest.raises(SchemaTooNew) as caught:
        Store.open(state_dir, **how)
    assert f"newer version (schema {future}, this one knows {len(MIGRATIONS)})" in caught.value.message
    assert caught.value.hint == "upgrade marchproxy on this machine"
    assert (state_dir / "marchproxy.db").read_bytes() == before


def test_an_older_schema_is_migrated_by_who_may_write(
    state_dir: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()

    def nothing(dal: Any) -> None:
        """A step."""

    _add_steps(monkeypatch, nothing)
    with pytest.raises(SchemaTooOld, match="older version") as caught:
        Store.open(state_dir, read_only=True)
    assert caught.value.hint == "run: marchproxy init"
    with Store.open(state_dir) as opened:
        assert schema_version(opened._database) == len(MIGRATIONS) + 1
    with Store.open(state_dir, read_only=True) as opened:
        assert opened.verify().number == 1


REVISIONS = {
    1: "e5877eb4a96237254a6997f4d306207317d3e3e230502ecabd9507331eb3fa1a",
    2: "54d9437c1adff3b33067609b053be64128f7f7ea12ba32636a833b7acaf6040c",
    3: "d7bb782dc589e5d995f35ba816eb26dcfe74c3133068f8ed418fe8945d02292e",
}
"""Of the store in schema_1.sql, which the first released version wrote."""


def test_a_store_of_the_first_version_keeps_its_history_and_hashes(state_dir: Path) -> None:
    _tables_of_the_first_version(state_dir)
    with Store.open(state_dir) as opened:
        assert opened.verify().sha256 == REVISIONS[3]
        assert {number: opened.snapshot_at(number).sha256() for number in REVISIONS} == REVISIONS
        snapshot = opened.snapshot()
        assert snapshot.settings == DEFAULT_SETTINGS
        web = snapshot.clusters[0].services[1]
        assert (web.health_interval, web.health_timeout, web.drain) == (5, None, ())
        assert opened.rollback(2).sha256 == REVISIONS[2]
        opened.replace(appending(service("new")), message="new")
        opened._known = None
        assert opened.verify().number == 5


def _tables_of_the_first_version(state_dir: Path) -> None:
    state_dir.mkdir()
    first = sqlite3.connect(state_dir / "marchproxy.db")
    first.executescript((Path(__file__).parent / "schema_1.sql").read_text())
    first.close()


def test_credentials_come_whole_or_not_at_all(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tables_of_the_first_version(state_dir)

    def power_goes(dal: Any, table: str, *columns: str, unique: bool = False) -> None:
        assert "token" in {name for (name,) in dal.executesql("SELECT name FROM sqlite_master")}
        raise RuntimeError("power went")

    with monkeypatch.context() as before:
        before.setattr(migrations, "MIGRATIONS", MIGRATIONS[:4])
        Store.open(state_dir).close()
    with monkeypatch.context() as broken:
        broken.setattr(migrations, "index", power_goes)
        with pytest.raises(RuntimeError):
            Store.open(state_dir)
    raw = sqlite3.connect(state_dir / "marchproxy.db")
    assert raw.execute("SELECT max(number) FROM migration").fetchone() == (4,)
    assert not raw.execute("SELECT 1 FROM sqlite_master WHERE name = 'token'").fetchall()
    assert "jwt_keys" not in {row[1] for row in raw.execute("PRAGMA table_info(service)")}
    raw.close()
    with Store.open(state_dir) as opened:
        assert opened.verify().sha256 == REVISIONS[3]
        mapping = opened.snapshot().clusters[0].mappings[0]
        assert (mapping.on_expiry, mapping.sni, mapping.sni_missing) == ("keep", False, "deny")
        assert opened.credentials.tokens() == []


def test_settings_start_as_the_model_has_them(store: Store) -> None:
    """The migration wrote them down as they were; a default that changes needs a migration of its own."""
    store._known = None
    assert store.snapshot() == Snapshot()
