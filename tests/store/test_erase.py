"""Taking a store away."""

from pathlib import Path

import pytest

from marchproxy.store.erase import erase, state_folder
from marchproxy.store.errors import StoreError
from marchproxy.store.store import Store


def test_everything_of_ours_goes_and_the_rest_stays(tmp_path: Path) -> None:
    Store.open(tmp_path, create=True).close()
    for name in ("marchproxy.db-wal", "secret.key", "learned.json", "of somebody else"):
        (tmp_path / name).write_text("x")
    for name in ("replaced-20300101T000000Z-abcd", ".restore-xyz"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "secret.key").write_text("x")
    erased = erase(tmp_path, also=("learned.json", "names.json"))
    assert [Path(path).name for path in erased.removed] == [
        *("marchproxy.db", "marchproxy.db-wal", "secret.key", "learned.json"),
        *("replaced-20300101T000000Z-abcd", ".restore-xyz"),
    ]
    assert erased.left == (str(tmp_path / "of somebody else"),)
    assert [path.name for path in tmp_path.iterdir()] == ["of somebody else"]


def test_where_nothing_is_nothing_happens(tmp_path: Path) -> None:
    assert erase(tmp_path / "none").removed == ()
    assert erase(tmp_path).left == ()


def test_a_link_is_removed_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("x")
    state = tmp_path / "state"
    state.mkdir()
    (state / "replaced-1").symlink_to(tmp_path / "elsewhere")
    (state / "secret.key").symlink_to(tmp_path / "gone")
    assert len(erase(state).removed) == 2
    assert (tmp_path / "elsewhere" / "file").exists()


def test_a_store_on_a_server_is_the_server_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:secret@db/marchproxy")
    with pytest.raises(StoreError, match="on a server") as refused:
        state_folder()
    assert "secret" not in str(refused.value)


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "marchproxy.db").mkdir()
    (tmp_path / "marchproxy.db" / "inside").write_text("x")
    assert erase(tmp_path).removed == (str(tmp_path / "marchproxy.db"),)
