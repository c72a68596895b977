"""A store of an older version, looked at as this version would leave it."""

import sqlite3
from pathlib import Path

import pytest

from marchproxy.store.errors import SchemaTooOld
from marchproxy.store.location import FILE_NAME
from marchproxy.store.rehearsal import rehearse
from marchproxy.store.store import Store


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """What the first released version wrote."""
    (tmp_path / "old").mkdir()
    connection = sqlite3.connect(tmp_path / "old" / FILE_NAME)
    connection.executescript((Path(__file__).parent / "schema_1.sql").read_text())
    connection.close()
    return tmp_path / "old"


def test_the_copy_is_migrated_and_the_original_is_not(old: Path) -> None:
    snapshot = rehearse(old)
    assert snapshot is not None
    with pytest.raises(SchemaTooOld):
        Store.open(old, read_only=True)
    with Store.open(old) as migrated:
        assert migrated.snapshot() == snapshot


def test_nothing_of_it_is_left(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    rehearse(old)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_server_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@192.0.2.1/none")
    assert rehearse() is None
