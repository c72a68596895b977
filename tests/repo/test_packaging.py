"""The locks hold what pyproject.toml asks for, and a wheel is complete without its checkout."""

import hashlib
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from marchproxy.version import VERSION
from tests.repo.tree import ROOT

LOCKED = re.compile(
    r"^([a-z0-9-]+)==([^ \\]+)[^\n]*(?:\n +--hash=sha256:[0-9a-f]{64}(?: \\)?)+", re.MULTILINE
)


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    [built] = folder.glob("*.whl")
    return built


def locked(name: str) -> dict[str, Version]:
    text = (ROOT / name).read_text()
    found = {package: Version(version) for package, version in LOCKED.findall(text)}
    assert len(found) == len(re.findall(r"^[a-z]", text, re.MULTILINE)), f"{name}: an entry without hashes"
    return found


@pytest.mark.parametrize(
    ("lock", "groups"),
    [
        ("requirements.lock", ["build"]),
        ("requirements-dev.lock", ["build", "dev"]),
        ("requirements-bench.lock", ["build", "dev", "bench"]),
    ],
)
def test_lock_satisfies_what_is_asked_for(pyproject: dict[str, Any], lock: str, groups: list[str]) -> None:
    asked = [*pyproject["project"]["dependencies"]]
    asked += [line for group in groups for line in pyproject["dependency-groups"][group]]
    versions = locked(lock)
    for requirement in map(Requirement, asked):
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [("requirements.lock", "requirements-dev.lock"), ("requirements-dev.lock", "requirements-bench.lock")],
)
def test_locks_agree(smaller: str, larger: str) -> None:
    """Otherwise what was tested or measured would not be what runs."""
    fewer, more = locked(smaller), locked(larger)
    assert {name: more.get(name) for name in fewer} == fewer


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("bcc", "on PyPI this is an unrelated lattice library; the real BCC is Debian's python3-bpfcc"),
        ("pydantic", "its import costs every command 70 ms; typer asks for it from 0.29 on"),
    ],
)
def test_unwanted_packages_stay_out(name: str, why: str) -> None:
    assert name not in locked("requirements-dev.lock"), why


def test_wheel_holds_all_that_the_appliance_loads(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "marchproxy").rglob("*.[ch]")}
    objects = {str(path.relative_to(ROOT)) for path in (ROOT / "marchproxy" / "bpf" / "objects").glob("*.o")}
    assert {f"marchproxy/bpf/objects/{name}.bpf.o" for name in ("tc", "xdp", "handoff", "lookup")} <= objects
    assert names >= {"marchproxy/.version", "marchproxy/bpf/objects/SHA256SUMS", *sources, *objects}
    assert not [name for name in names if name.startswith("tests/")]


def test_wheel_lists_its_objects_with_their_sums(wheel: Path) -> None:
    held = zipfile.ZipFile(wheel)
    listed = held.read("marchproxy/bpf/objects/SHA256SUMS").decode().splitlines()
    assert len(listed) == sum(name.endswith(".bpf.o") for name in held.namelist())
    for line in listed:
        digest, name = line.split()
        assert hashlib.sha256(held.read(f"marchproxy/bpf/objects/{name}")).hexdigest() == digest


def test_wheels_of_one_source_are_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()
    # It holds no program of one processor but those of the kernel's own machine.
    assert wheel.name == f"marchproxy-{VERSION}-py3-none-any.whl"


def test_unpacked_wheel_knows_its_version(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from marchproxy import version; print(version.__file__, version.VERSION)"
    )
    said = subprocess.check_output([sys.executable, "-I", "-c", program, tmp_path], text=True)
    assert said.split() == [str(tmp_path / "marchproxy" / "version.py"), VERSION]
