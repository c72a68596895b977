"""The unit by itself: systemd understands every line of it, and little is open."""

import subprocess
from pathlib import Path

import pytest

from tests.repo.tree import ROOT

UNIT = ROOT / "systemd" / "marchproxy.service"
pytestmark = pytest.mark.requires(commands=["systemd-analyze"])


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Where its programs exist."""
    text = UNIT.read_text().replace("/usr/bin/marchproxy", "/bin/true")
    copy = tmp_path / "marchproxy.service"
    copy.write_text(text)
    return copy


def test_systemd_understands_it(unit: Path) -> None:
    """Of keys that it does not know it only warns, and goes on with 0."""
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line for line in said.stderr.splitlines() if unit.name in line] == []


def test_its_exposure_is_low(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=25", "--no-pager", str(unit)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout
