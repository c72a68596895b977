"""`make audit`: what is known, what is not, and what could not be asked are three answers."""

import json
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.repo.tree import ROOT

FLAW = {"id": "PYSEC-1", "fix_versions": ["2.0"], "aliases": []}
REPORT = {"dependencies": [{"name": "rich", "version": "1.0", "vulns": [FLAW]}], "fixes": []}
TOOL = """\
#!/bin/sh
# Stands in for pip-audit: {meaning}
while [ "$1" != --output ]; do shift; done
{does}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """One where the tool is installed already."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "audit.sh", tmp_path / "scripts")
    for name in ("requirements.lock", "requirements-audit.lock"):
        shutil.copy(ROOT / name, tmp_path)
    tools = tmp_path / "build" / "audit" / "bin"
    tools.mkdir(parents=True)
    (tools / "python").symlink_to(shutil.which("python3") or "/usr/bin/python3")
    command = "sha256sum <requirements-audit.lock | tr -d '\\n' >build/audit/.complete"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    return tmp_path


def audit(checkout: Path, meaning: str, does: str) -> "subprocess.CompletedProcess[str]":
    tool = checkout / "build" / "audit" / "bin" / "pip-audit"
    tool.write_text(TOOL.format(meaning=meaning, does=does))
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return subprocess.run([checkout / "scripts" / "audit.sh"], capture_output=True, text=True, check=False)


def test_nothing_is_known(checkout: Path) -> None:
    done = audit(checkout, "nothing found", 'echo "{}" >"$2"')
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    packages = len([line for line in lines if "==" in line])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"requirements.lock: nothing is known about {packages} packages\n"


def test_something_is(checkout: Path) -> None:
    done = audit(checkout, "one flaw", f"echo '{json.dumps(REPORT)}' >\"$2\"; exit 1")
    assert (done.returncode, done.stdout) == (1, "rich 1.0: PYSEC-1, corrected in 2.0\n")


def test_nobody_could_be_asked(checkout: Path) -> None:
    done = audit(checkout, "no network", "echo 'no such host' >&2; exit 1")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "no such host\naudit: OSV could not be asked about requirements.lock\n"
