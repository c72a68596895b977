"""The vault: what is sealed opens for its owner, with its key, and nothing else."""

import os
import stat
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from threading import Barrier, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.model.publickey import decode, encode
from marchproxy.store import vault as vaults
from marchproxy.store.errors import (
    StoreError,
    VaultKeyExposed,
    VaultKeyInvalid,
    VaultKeyMissing,
    VaultUnreadable,
)
from marchproxy.store.location import locate
from marchproxy.store.vault import Vault

SECRET = b"a secret of which nothing may be seen"
NOTHING: Mapping[str, str] = {}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "secret.key"


def test_what_is_sealed_opens_again(file: Path) -> None:
    sealed = Vault(file, NOTHING).seal(SECRET, "web")
    assert Vault(file, NOTHING).unseal(sealed, "web") == SECRET
    assert SECRET not in b64decode(sealed)
    assert Vault(file, NOTHING).seal(SECRET, "web") != sealed, "each time with another nonce"


def test_the_key_is_made_on_first_need_for_its_owner_alone(file: Path) -> None:
    vault = Vault(file, NOTHING)
    assert not file.exists()
    vault.seal(SECRET, "web")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert len(decode(file.read_text().strip())) == vaults.KEY_BYTES
    assert [path.name for path in file.parent.iterdir()] == ["secret.key"]
    before = file.read_bytes()
    vault.seal(SECRET, "web")
    assert file.read_bytes() == before


@pytest.mark.requires("root")
def test_a_key_that_root_makes_belongs_to_whom_the_folder_belongs(file: Path) -> None:
    file.parent.mkdir()
    os.chown(file.parent, 12345, 12346)
    Vault(file, NOTHING).seal(SECRET, "web")
    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 12346)


def test_another_owner_or_another_key_opens_nothing(file: Path, tmp_path: Path) -> None:
    sealed = Vault(file, NOTHING).seal(SECRET, "web")
    other = Vault(tmp_path / "other.key", NOTHING)
    other.seal(SECRET, "web")
    with pytest.raises(VaultUnreadable, match="the secret of service 'mail' does not open"):
        Vault(file, NOTHING).unseal(sealed, "mail")
    with pytest.raises(VaultUnreadable):
        other.unseal(sealed, "web")


@given(st.integers(0, 10_000), st.sampled_from("Aw7+/=\n é"))
def test_what_was_changed_does_not_open(place: int, char: str) -> None:
    key = encode(bytes(32))
    vault = Vault(Path("/nowhere"), NOTHING)
    vault._read = lambda: decode(key)  # type: ignore[method-assign]
    sealed = vault.seal(SECRET, "web")
    place %= len(sealed)
    changed = sealed[:place] + char + sealed[place + 1 :]
    if changed == sealed:
        assert vault.unseal(changed, "web") == SECRET
        return
    with pytest.raises(VaultUnreadable):
        vault.unseal(changed, "web")


def test_a_key_that_is_gone_is_not_made_anew(file: Path) -> None:
    sealed = Vault(file, NOTHING).seal(SECRET, "web")
    file.unlink()
    with pytest.raises(VaultKeyMissing, match="is gone"):
        Vault(file, NOTHING).unseal(sealed, "web")
    assert not file.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_may_read_is_refused(file: Path, mode: int) -> None:
    Vault(file, NOTHING).seal(SECRET, "web")
    file.chmod(mode)
    with pytest.raises(VaultKeyExposed) as caught:
        Vault(file, NOTHING).seal(SECRET, "web")
    assert caught.value.hint == f"chmod 600 {file}"


@pytest.mark.parametrize("text", ["", "short", encode(bytes(31)), encode(bytes(33)), "é" * 43, "A" * 5000])
def test_what_is_no_key(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(VaultKeyInvalid):
        Vault(file, NOTHING).seal(SECRET, "web")


def test_where_no_key_can_be_made_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        Vault(tmp_path / "file" / "secret.key", NOTHING).seal(SECRET, "web")
    (tmp_path / "folder.key").mkdir()
    with pytest.raises(StoreError):
        Vault(tmp_path / "folder.key", NOTHING).seal(SECRET, "web")


def test_a_systemd_credential_comes_first(file: Path, tmp_path: Path) -> None:
    (tmp_path / vaults.CREDENTIAL).write_text(encode(bytes(32)) + "\n")
    (tmp_path / vaults.CREDENTIAL).chmod(0o440)
    given = Vault(file, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    sealed = given.seal(SECRET, "web")
    assert not file.exists()
    assert given.unseal(sealed, "web") == SECRET
    (tmp_path / vaults.CREDENTIAL).unlink()
    without = Vault(file, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    with pytest.raises(VaultKeyMissing):
        without.unseal(sealed, "web")


def test_a_credential_that_may_not_be_looked_at_fails_when_it_is_needed(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path, *, follow_symlinks: bool = True) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", forbidden)
    vault = Vault(file, {"CREDENTIALS_DIRECTORY": str(tmp_path / "given")})
    with pytest.raises(StoreError, match="given"):
        vault.unseal(Vault(file, NOTHING).seal(SECRET, "web"), "web")


def test_of_two_processes_one_makes_the_key(file: Path) -> None:
    both = Barrier(2)
    sealed: list[str] = []

    def seal() -> None:
        vault = Vault(file, NOTHING)
        both.wait()
        sealed.append(vault.seal(SECRET, "web"))

    threads = [Thread(target=seal) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [Vault(file, NOTHING).unseal(item, "web") for item in sealed] == [SECRET, SECRET]
    assert [path.name for path in file.parent.iterdir()] == ["secret.key"]


def test_a_failure_half_way_leaves_no_key(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", fail)
        with pytest.raises(StoreError, match="no space left"):
            Vault(file, NOTHING).seal(SECRET, "web")
    assert list(file.parent.iterdir()) == []


def test_where_the_key_is(tmp_path: Path) -> None:
    for environment, where in [
        ({"MARCHPROXY_STATE_DIR": str(tmp_path)}, tmp_path),
        ({"DATABASE_URL": f"sqlite://{tmp_path}/a/b.db"}, tmp_path / "a"),
        ({"DATABASE_URL": "postgres://h/n"}, Path("/var/lib/marchproxy")),
        ({"DATABASE_URL": "postgres://h/n", "MARCHPROXY_STATE_DIR": str(tmp_path)}, tmp_path),
    ]:
        assert Vault.beside(locate(None, environment), environment)._file == where / "secret.key"


def test_keys_for_other_things_come_from_the_key_and_are_not_the_key(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "secret.key", {})
    assert vault.derived("cookies") is None
    vault.seal(b"x", "owner")
    made = vault.derived("cookies")
    assert made is not None
    assert len(made) == 32
    assert made == Vault(tmp_path / "secret.key", {}).derived("cookies") != vault.derived("other")
    assert made not in (tmp_path / "secret.key").read_bytes()
    (tmp_path / "secret.key").chmod(0o644)
    assert vault.derived("cookies") is None
