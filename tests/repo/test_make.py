"""What the Makefile would run."""

import os
import subprocess

import pytest

from tests.repo.tree import ROOT

pytestmark = pytest.mark.requires(commands=["make"])


def commands(target: str) -> list[str]:
    """The lines of a target, none of which is run; those that are continued are one."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--dry-run", "--always-make", target]
    listed = subprocess.check_output(command, cwd=ROOT, env=environment, text=True)
    return listed.replace("\\\n", " ").splitlines()


def test_what_boots_is_tested_by_boot_and_by_that_alone() -> None:
    """A module that nobody names would be tested nowhere, or fail where there is no root."""
    booted = {f"tests/packaging/{path.name}" for path in (ROOT / "tests" / "packaging").glob("test_boot*.py")}
    booted.add("tests/packaging/test_ubuntu.py")
    [boot] = [line for line in commands("boot") if "-m pytest" in line]
    assert {word for word in boot.split() if word.startswith("tests/")} == booted
    [test] = [line for line in commands("test") if "-m pytest" in line]
    for name in booted:
        assert f"--ignore {name}" in test


def test_a_release_is_not_checked_where_tests_are_skipped() -> None:
    [check] = [line for line in commands("release-check") if "-m pytest" in line]
    assert " CI=true MARCHPROXY_EXCUSES=none " in f" {check}"
    for name in ("test_boot", "test_ubuntu"):
        assert name not in check
