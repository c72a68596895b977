"""`marchproxy restore`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.console import Answers, Console, Daemon


@pytest.fixture
def passphrase(tmp_path: Path) -> str:
    """A file with one."""
    (tmp_path / "passphrase").write_text("correct horse\n")
    return str(tmp_path / "passphrase")


@pytest.fixture
def saved(site: Console, tmp_path: Path, passphrase: str) -> str:
    """A backup of `site`, which has changed since."""
    site.ok("service", "set", "web", "--auth", "jwt")
    site.ok("token", "issue", "web")
    site.ok("backup", str(tmp_path / "box.backup"), "--passphrase-file", passphrase)
    site.ok("service", "add", "later", "--address", "10.9.0.1")
    return str(tmp_path / "box.backup")


def test_everything_is_as_it_was(site: Console, saved: str, passphrase: str) -> None:
    result = site.ok("restore", saved, "--passphrase-file", passphrase, "--yes")
    assert result.err.startswith("revision 3 of ")
    assert "what was there is in " in result.err
    assert site("service", "show", "later").code == 3
    # The key came with it: what was sealed opens.
    site.ok("token", "issue", "web")


def test_on_another_machine(saved: str, passphrase: str, tmp_path: Path) -> None:
    other = Console(tmp_path / "other")
    result = other.ok("restore", saved, "--passphrase-file", passphrase, "--yes")
    assert "what was there" not in result.err
    other.ok("service", "show", "web")
    other.ok("token", "issue", "web")


def test_beside_a_daemon_it_is_refused(
    site: Console, saved: str, passphrase: str, daemon: Callable[[Answers], Daemon]
) -> None:
    daemon({"GET /v1/status": (200, {"pid": 4711})})
    result = site("restore", saved, "--passphrase-file", passphrase, "--yes")
    assert result.code == 4
    assert "the daemon with process 4711 works with the store" in result.err
    site.ok("service", "show", "later")


def test_codes(site: Console, saved: str, passphrase: str, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("another one\n")
    assert site("restore", saved, "--passphrase-file", passphrase).code == 2
    assert site("restore", saved, "--yes").code == 2
    assert site("restore", saved, "--passphrase-file", str(tmp_path / "wrong"), "--yes").code == 1
    assert site("restore", str(tmp_path / "none"), "--passphrase-file", passphrase, "--yes").code == 3
    assert site("restore", str(tmp_path), "--passphrase-file", passphrase, "--yes").code == 5
    site.ok("service", "show", "later")
