"""A backup in the place of a store: all of it, or nothing has changed."""

import sqlite3
from pathlib import Path

import pytest

from marchproxy.store import migrations
from marchproxy.store.backup import Contents, make_backup, open_backup
from marchproxy.store.errors import SchemaTooNew, StoreError
from marchproxy.store.location import FILE_NAME
from marchproxy.store.restore import restore
from marchproxy.store.store import Store
from marchproxy.store.vault import KEY_FILE
from tests.store.build import appending, service

PASSPHRASE = "correct horse"


@pytest.fixture
def contents(state_dir: Path) -> Contents:
    """Of a store with one service, and a key."""
    with Store.open(state_dir, create=True) as store:
        store.replace(appending(service("kept")), message="kept")
    (state_dir / KEY_FILE).write_text("A" * 43 + "\n")
    (state_dir / KEY_FILE).chmod(0o600)
    return open_backup(make_backup(PASSPHRASE, state_dir), PASSPHRASE)


def names(state: Path) -> list[str]:
    with Store.open(state, read_only=True) as store:
        return [service.name for service in store.snapshot().clusters[0].services]


def test_into_an_empty_folder(contents: Contents, tmp_path: Path) -> None:
    head, replaced = restore(contents, tmp_path / "new")
    assert (head.number, head.message, replaced) == (2, "kept", None)
    assert names(tmp_path / "new") == ["kept"]
    assert {path.name for path in (tmp_path / "new").iterdir()} >= {FILE_NAME, KEY_FILE}
    assert (tmp_path / "new" / KEY_FILE).read_bytes() == contents.key
    for name in (FILE_NAME, KEY_FILE):
        assert (tmp_path / "new" / name).stat().st_mode & 0o777 == 0o600


def test_what_was_there_is_kept_beside_it(contents: Contents, state_dir: Path) -> None:
    with Store.open(state_dir) as store:
        store.replace(appending(service("later")), message="later")
    # Still open somewhere, so its journal is there.
    with Store.open(state_dir, read_only=True):
        _, replaced = restore(contents, state_dir)
    assert replaced is not None
    assert names(state_dir) == ["kept"]
    assert names(replaced) == ["kept", "later"]
    assert (replaced / KEY_FILE).exists()
    assert [path for path in state_dir.iterdir() if path.name.startswith(".restore")] == []


def test_a_backup_of_a_newer_version_changes_nothing(
    contents: Contents, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(path.name for path in state_dir.iterdir())
    monkeypatch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:-1])
    with pytest.raises(SchemaTooNew):
        restore(contents, state_dir)
    assert sorted(path.name for path in state_dir.iterdir()) == before


def test_what_is_no_store_changes_nothing(contents: Contents, state_dir: Path) -> None:
    with pytest.raises(StoreError):
        restore(Contents(b"no database", None), state_dir)
    assert names(state_dir) == ["kept"]


def test_a_backup_of_an_older_version_is_migrated(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "old.db")
    old.executescript((Path(__file__).parent / "schema_1.sql").read_text())
    old.close()
    head, _ = restore(Contents((tmp_path / "old.db").read_bytes(), None), tmp_path / "new")
    assert head.number == 3
    assert names(tmp_path / "new") == ["clients", "web"]


def test_a_server_takes_none(contents: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@192.0.2.1/none")
    with pytest.raises(StoreError, match="is on a server"):
        restore(contents)
