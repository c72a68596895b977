"""The version stands in one file, and everything that names a version names this one."""

import re
import tomllib

from packaging.version import Version

from marchproxy.version import VERSION
from tests.repo.tree import ROOT


def test_version_file_is_one_plain_line() -> None:
    assert re.fullmatch(r"v?\d+\.\d+\.\d+(\.\d+)?\n", (ROOT / ".version").read_text())


def test_the_package_reads_it() -> None:
    assert (ROOT / ".version").read_text().strip().removeprefix("v") == VERSION


def test_the_package_metadata_reads_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == ".version"
    found = re.search(project["tool"]["hatch"]["version"]["pattern"], (ROOT / ".version").read_text().strip())
    assert found is not None
    assert found["version"] == VERSION


def test_release_notes_begin_with_it() -> None:
    releases = re.findall(r"^## (\S+)$", (ROOT / "docs" / "RELEASE_NOTES.md").read_text(), re.MULTILINE)
    assert releases[0] == ".".join(VERSION.split(".")[:3])
    assert releases == sorted(releases, key=Version, reverse=True)
