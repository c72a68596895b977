"""scripts/version/update-version.sh, on a checkout of two files."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.repo.tree import ROOT

SCRIPT = Path("scripts", "version", "update-version.sh")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / SCRIPT.parent).mkdir(parents=True)
    shutil.copy(ROOT / SCRIPT, tmp_path / SCRIPT)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "RELEASE_NOTES.md").write_text("# Release notes\n\n## 1.2.3\n\n- Older.\n")
    (tmp_path / ".version").write_text("v1.2.3.1600000000\n")
    return tmp_path


def update(checkout: Path, *words: str, built: str = "1700000000") -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "SOURCE_DATE_EPOCH": built}
    command = [str(checkout / SCRIPT), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "version"),
    [
        ((), "v1.2.3.1700000000"),
        (("patch",), "v1.2.4.1700000000"),
        (("minor",), "v1.3.0.1700000000"),
        (("major",), "v2.0.0.1700000000"),
    ],
)
def test_each_part(checkout: Path, words: tuple[str, ...], version: str) -> None:
    assert update(checkout, *words).stdout == f"{version}\n"
    assert (checkout / ".version").read_text() == f"{version}\n"


@pytest.mark.parametrize("written", ["1.2.3", "v1.2.3", "1.2.3.5"])
def test_what_may_stand_there(checkout: Path, written: str) -> None:
    (checkout / ".version").write_text(f"{written}\n")
    assert update(checkout, "patch").stdout == "v1.2.4.1700000000\n"


def test_a_release_begins_its_notes_once(checkout: Path) -> None:
    update(checkout, "minor")
    update(checkout)
    notes = (checkout / "docs" / "RELEASE_NOTES.md").read_text()
    assert notes == "# Release notes\n\n## 1.3.0\n\n## 1.2.3\n\n- Older.\n"


@pytest.mark.parametrize("words", [("all",), ("major", "minor")])
def test_anything_else_is_a_usage_error(checkout: Path, words: tuple[str, ...]) -> None:
    result = update(checkout, *words)
    assert (result.returncode, result.stdout) == (2, "")
    assert "usage:" in result.stderr


def test_a_file_that_holds_no_version_stays(checkout: Path) -> None:
    (checkout / ".version").write_text("next\n")
    result = update(checkout, "patch")
    assert result.returncode == 1
    assert "expected vMAJOR.MINOR.PATCH.BUILD" in result.stderr
    assert (checkout / ".version").read_text() == "next\n"
