"""A backup: whole, at one moment, and closed to whoever has not the passphrase."""

import sqlite3
from pathlib import Path

import pytest

from marchproxy.model.errors import InvalidValue
from marchproxy.store.backup import MAGIC, make_backup, open_backup
from marchproxy.store.errors import StoreError
from marchproxy.store.store import Store
from marchproxy.store.vault import KEY_FILE
from tests.store.build import appending, service

PASSPHRASE = "correct horse"


def test_it_holds_store_and_key(store: Store, state_dir: Path) -> None:
    store.replace(appending(service("web")), message="web")
    (state_dir / KEY_FILE).write_text("A" * 43 + "\n")
    (state_dir / KEY_FILE).chmod(0o600)
    contents = open_backup(make_backup(PASSPHRASE, state_dir), PASSPHRASE)
    assert contents.key == b"A" * 43 + b"\n"
    assert b"web" in contents.database
    held = sqlite3.connect(":memory:")
    held.deserialize(contents.database)
    assert held.execute("SELECT max(number) FROM revision").fetchone() == (2,)
    held.close()


def test_without_secrets_there_is_no_key(store: Store, state_dir: Path) -> None:
    assert open_backup(make_backup(PASSPHRASE, state_dir), PASSPHRASE).key is None


def test_two_of_the_same_have_nothing_in_common(store: Store, state_dir: Path) -> None:
    first, second = make_backup(PASSPHRASE, state_dir), make_backup(PASSPHRASE, state_dir)
    assert first != second
    assert b"default" not in first


@pytest.mark.parametrize("at", [len(MAGIC), len(MAGIC) + 20, 200, -1])
def test_a_changed_byte_is_noticed(store: Store, state_dir: Path, at: int) -> None:
    data = bytearray(make_backup(PASSPHRASE, state_dir))
    data[at] ^= 1
    with pytest.raises(StoreError, match="does not open"):
        open_backup(bytes(data), PASSPHRASE)


def test_what_does_not_open_says_why(store: Store, state_dir: Path) -> None:
    data = make_backup(PASSPHRASE, state_dir)
    for opened, passphrase, why in (
        (data, "another one", "does not open"),
        (data[:100], PASSPHRASE, "does not open"),
        (data[: len(MAGIC)], PASSPHRASE, "does not open"),
        (b"", PASSPHRASE, "no backup of an appliance"),
        (b"PK\x03\x04", PASSPHRASE, "no backup of an appliance"),
        (b"MARCHPROXY-BACKUP/9\n" + data, PASSPHRASE, "newer version"),
    ):
        with pytest.raises(StoreError, match=why):
            open_backup(opened, passphrase)


def test_a_passphrase_that_is_too_short_is_refused(store: Store, state_dir: Path) -> None:
    with pytest.raises(InvalidValue, match="passphrase") as refused:
        make_backup("short", state_dir)
    assert "short" not in refused.value.message.replace("shortest", "")


def test_a_store_on_a_server_is_not_backed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody:hidden@192.0.2.1/none")
    with pytest.raises(StoreError, match="is on a server") as refused:
        make_backup(PASSPHRASE)
    assert "hidden" not in refused.value.message
