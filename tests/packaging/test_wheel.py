"""What is uploaded to an index: by itself it makes a working command, and its source makes the same again."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from marchproxy.version import VERSION
from tests.packaging import building
from tests.repo.tree import ROOT

OFFLINE = ("--no-index", "--find-links", str(ROOT / "build" / "wheels"))
"""For pip: nothing but what was fetched by its hash."""
Marchproxy = Callable[..., str]


def done(*command: str | Path, cwd: Path, env: dict[str, str] = building.ENVIRONMENT) -> str:
    """What a command prints; an assertion with all that it said where it fails."""
    result = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive and the wheel."""
    return building.wheel(tmp_path_factory.mktemp("built")).parent


@pytest.fixture(scope="module")
def marchproxy(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Marchproxy:
    """The command of an environment that has the wheel and what that asks for; this checkout is not seen."""
    folder = tmp_path_factory.mktemp("clean")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    for name in ("STATE_DIR", "RUNTIME_DIR", "BPFFS"):
        environment[f"MARCHPROXY_{name}"] = str(folder / name.lower())
    done(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=folder, env=environment)
    [wheel] = built.glob("*.whl")
    # By the pip that is here: to make one more, and to compile all modules, is most of the time.
    pip = (sys.executable, "-m", "pip", "--python", "venv", "install", "--no-compile")
    done(*pip, *OFFLINE, wheel, cwd=folder, env=environment)
    return lambda *words: done("venv/bin/marchproxy", *words, cwd=folder, env=environment)


def test_installed_in_a_clean_environment_without_an_index_it_works(marchproxy: Marchproxy) -> None:
    assert marchproxy("--version") == f"marchproxy {VERSION}\n"
    marchproxy("init")
    marchproxy("service", "add", "web", "--address", "10.2.0.2", "--port", "80")
    [service] = json.loads(marchproxy("service", "list", "--output", "json"))
    assert service["name"] == "web"
    marchproxy("check")


def test_the_wheel_of_the_source_archive_is_the_same_bytes(built: Path, tmp_path: Path) -> None:
    """Built as pip does it for who has no wheel: from what is in the archive, and nothing else."""
    [archive], [wheel] = built.glob("*.tar.gz"), built.glob("*.whl")
    environment = {**building.ENVIRONMENT, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", *OFFLINE, "--wheel-dir", tmp_path / "again")
    previous = os.umask(0o077)
    try:
        done(*pip, archive, cwd=tmp_path, env=environment)
    finally:
        os.umask(previous)
    assert (tmp_path / "again" / wheel.name).read_bytes() == wheel.read_bytes()
