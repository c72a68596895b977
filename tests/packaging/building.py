"""What is built, once for all tests: each asks for it, and whoever comes first builds it."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from marchproxy.version import VERSION
from tests.repo.tree import ROOT

# What is asked for, or the build's own time; that of the last commit would have every commit built anew.
ENVIRONMENT: Final = {
    **{name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
    "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH") or VERSION.rpartition(".")[2],
}


def build(target: str) -> None:
    """Make a file by the checkout's Makefile; those who come meanwhile wait for it."""
    if sys.base_prefix == "/usr":
        pytest.skip("the distribution's own Python cannot be carried: have one from pyenv or uv")
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / ".turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        done = subprocess.run(
            ["make", "--no-print-directory", target],
            cwd=ROOT,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def ask(question: str) -> str:
    """What packaging/common.sh answers."""
    command = ["bash", "-c", f"source packaging/common.sh; {question}"]
    return subprocess.check_output(command, cwd=ROOT, env=ENVIRONMENT, text=True).strip()


def wheel(folder: Path) -> Path:
    """The wheel, in a folder; the source archive is beside it.

    Not by `make wheel`, which would set up the environment in which other tests run.
    """
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--target", "wheel"]
    command += ["--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / f"marchproxy-{VERSION}-py3-none-any.whl"


def payload() -> Path:
    """The folder with Python, libraries and MarchProxy."""
    build(f"build/payload-{ask('echo $SOURCE_DATE_EPOCH')}.stamp")
    return ROOT / "build" / "payload"


def binary() -> Path:
    """The single file."""
    file = ROOT / "dist" / f"{ask('artifact_name')}-linux-amd64"
    build(str(file.relative_to(ROOT)))
    return file


def package() -> Path:
    """The Debian package."""
    file = ROOT / "dist" / f"marchproxy_{ask('version')}_amd64.deb"
    build(str(file.relative_to(ROOT)))
    return file


def run_sbom(tree: Path, wheels: Path, libraries: Path) -> "subprocess.CompletedProcess[str]":
    """List what is in a folder that is said to be a payload."""
    command = [sys.executable, "packaging/sbom.py", *map(str, (tree, wheels, libraries))]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
