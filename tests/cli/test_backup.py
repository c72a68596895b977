"""`marchproxy backup`."""

from pathlib import Path

import pytest

from tests.cli.console import Console


@pytest.fixture
def passphrase(tmp_path: Path) -> str:
    """A file with one."""
    (tmp_path / "passphrase").write_text("correct horse\nignored\n")
    return str(tmp_path / "passphrase")


def test_it_writes_a_file_for_its_owner(site: Console, tmp_path: Path, passphrase: str) -> None:
    file = tmp_path / "box.backup"
    result = site.ok("backup", str(file), "--passphrase-file", passphrase)
    assert result.out == ""
    assert result.err.startswith(f"{file}: ")
    assert file.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "box.backup.new").exists()


def test_it_overwrites_nothing(site: Console, tmp_path: Path, passphrase: str) -> None:
    (tmp_path / "box.backup").write_text("precious")
    result = site("backup", str(tmp_path / "box.backup"), "--passphrase-file", passphrase)
    assert (result.code, result.err.splitlines()[0]) == (4, f"error: {tmp_path}/box.backup exists already")
    assert (tmp_path / "box.backup").read_text() == "precious"


def test_codes(site: Console, tmp_path: Path, passphrase: str) -> None:
    file = str(tmp_path / "box.backup")
    assert site("backup", file).code == 2
    assert site("backup", file, "--passphrase-file", str(tmp_path / "none")).code == 5
    assert site("backup", str(tmp_path / "none" / "b"), "--passphrase-file", passphrase).code == 1
    (tmp_path / "short").write_text("short\n")
    refused = site("backup", file, "--passphrase-file", str(tmp_path / "short"))
    assert refused.code == 5
    assert "at least 8 characters" in refused.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["passphrase", "short"]


def test_without_a_store_there_is_nothing_to_back_up(
    console: Console, tmp_path: Path, passphrase: str
) -> None:
    assert console("backup", str(tmp_path / "b"), "--passphrase-file", passphrase).code == 3
