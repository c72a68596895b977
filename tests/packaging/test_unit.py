"""The units by themselves: systemd understands every line of them, and little is open."""

import subprocess
from pathlib import Path

import pytest

from tests.repo.tree import ROOT

UNITS = {"marchproxy.service": "25", "marchproxy-tui@.service": "15"}
"""With ten times the exposure that systemd may say at most."""
pytestmark = pytest.mark.requires(commands=["systemd-analyze"])


@pytest.fixture(params=UNITS)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where its programs exist, as an instance where it is a template."""
    name = str(request.param)
    text = (ROOT / "systemd" / name).read_text().replace("/usr/bin/marchproxy", "/bin/true")
    copy = tmp_path / name
    copy.write_text(text)
    return copy


def test_systemd_understands_it(unit: Path) -> None:
    """Of keys that it does not know it only warns, and goes on with 0."""
    instance = unit.rename(unit.with_name(unit.name.replace("@.", "@tty2.")))
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(instance)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line for line in said.stderr.splitlines() if instance.name in line] == []


def test_its_exposure_is_low(unit: Path) -> None:
    threshold = f"--threshold={UNITS[unit.name]}"
    command = ["systemd-analyze", "security", "--offline=true", threshold, "--no-pager", str(unit)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout
