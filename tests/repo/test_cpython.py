"""scripts/cpython.sh and who asks it where the interpreter is; nothing is compiled here."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.repo.tree import ROOT


def bash(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run it in the checkout; commands in `folder`/bin come before the machine's."""
    environment = {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "HOME": str(folder),
        "MARCHPROXY_PYTHONS": str(folder / "pythons"),
    }
    command = ["bash", "-c", code]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Its interpreter, where one is: this says what it is asked for as any does."""
    release = bash("source scripts/cpython.sh; printf %s $RELEASE", tmp_path).stdout
    where = tmp_path / "pythons" / release / "bin"
    real = bash("readlink -f .venv/bin/python", tmp_path).stdout.strip()
    program(where / "python3.13", f'exec {real} "$@"')
    return program(where / "python3", f'[ -z "$1" ] || echo {where}/python3')


def test_what_is_not_the_release_is_refused_wherever_it_is_from(tmp_path: Path) -> None:
    file = tmp_path / "source"
    program(tmp_path / "bin" / "curl", f'for last; do :; done; echo "asked $last" >&2; echo other >{file}')
    result = bash(f"source scripts/cpython.sh; fetch {file}", tmp_path)
    assert result.returncode == 1
    asked = [line for line in result.stderr.splitlines() if line.startswith("asked ")]
    assert len(asked) == 3
    assert result.stderr.count("not the file whose hash is in scripts/cpython.sh") == 3
    assert "cannot be fetched" in result.stderr


def test_the_file_of_the_right_hash_is_taken_from_the_first_that_has_it(tmp_path: Path) -> None:
    file = tmp_path / "source"
    program(
        tmp_path / "bin" / "curl",
        f"[ -e {tmp_path}/tried ] || {{ : >{tmp_path}/tried; exit 22; }}; echo it >{file}",
    )
    program(tmp_path / "bin" / "sha256sum", f"grep -q {file} && grep -qx it {file}")
    result = bash(f"source scripts/cpython.sh; fetch {file}", tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("==> Fetching") == 2


def test_without_it_nothing_is_where(tmp_path: Path) -> None:
    result = bash("scripts/cpython.sh --where", tmp_path)
    assert (result.returncode, result.stdout) == (1, "")


def test_an_unknown_argument_builds_nothing(tmp_path: Path) -> None:
    result = bash("scripts/cpython.sh --wehre", tmp_path)
    assert result.returncode == 1
    assert "unknown argument --wehre" in result.stderr
    assert not (tmp_path / "pythons").exists()


def test_built_it_is_the_first_that_set_up_looks_at(tmp_path: Path, built: Path) -> None:
    code = "source scripts/setup.sh; python_candidates | head -n 1"
    assert bash(code, tmp_path).stdout.strip() == str(built)


def test_packages_carry_it(tmp_path: Path, built: Path) -> None:
    code = (
        "eval \"$(sed -n '/^interpreter()/,/^}/p' packaging/payload.sh)\"; "
        'say() { echo "$*"; }; PYTHON=.venv/bin/python NAME=python3.13; interpreter'
    )
    assert bash(code, tmp_path).stdout.strip() == str(built.parent.parent)
    built.unlink()
    result = bash(code, tmp_path)
    assert "make python" in result.stderr
    assert Path(result.stdout.strip()).is_dir()
