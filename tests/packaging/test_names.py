"""What a build is called: by the tag of its commit, in a repository with nothing else in it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.repo.tree import ROOT

pytestmark = pytest.mark.requires(commands=["git"])

COMMITTED, BUILD = 1700000000, 1600000000
"""Seconds: the time of the commit, and what .version says."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Version 1.2.3, not committed."""
    (tmp_path / "packaging").mkdir()
    shutil.copy(ROOT / "packaging" / "common.sh", tmp_path / "packaging")
    (tmp_path / ".version").write_text(f"v1.2.3.{BUILD}\n")
    return tmp_path


def git(checkout: Path, *words: str) -> None:
    time = f"{COMMITTED} +0000"
    environment = {
        **{"PATH": os.environ["PATH"], "HOME": str(checkout), "GIT_CONFIG_NOSYSTEM": "1"},
        **{"GIT_AUTHOR_DATE": time, "GIT_COMMITTER_DATE": time},
    }
    somebody = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    subprocess.run(["git", *somebody, *words], cwd=checkout, env=environment, check=True, capture_output=True)


def commit(checkout: Path) -> None:
    git(checkout, "add", "--all")
    git(checkout, "commit", "--allow-empty", "--message=a change")


def name(checkout: Path, **environment: str) -> str:
    """What packaging/common.sh calls it."""
    command = ["bash", "-c", "source packaging/common.sh; artifact_name"]
    # No repository above it is asked.
    environment |= {"PATH": os.environ["PATH"], "GIT_CEILING_DIRECTORIES": str(checkout.parent)}
    return subprocess.check_output(command, cwd=checkout, env=environment, text=True).strip()


@pytest.mark.parametrize(
    ("tags", "called"),
    [
        (["v1.2.3"], "marchproxy-v1.2.3"),
        (["v1.2.3-beta"], "marchproxy-v1.2.3-beta"),
        (["v1.2.3-beta", "v1.2.3"], "marchproxy-v1.2.3"),
        ([], f"marchproxy-beta-{COMMITTED}"),
        # Of another version, or of something else.
        (["v1.2.4", "v1.2.3-rc1", "1.2.3", "v1.2.30"], f"marchproxy-beta-{COMMITTED}"),
    ],
    ids=["release", "beta", "both", "none", "others"],
)
def test_it_is_named_by_the_tag_of_its_commit(checkout: Path, tags: list[str], called: str) -> None:
    git(checkout, "init", "--quiet")
    commit(checkout)
    for tag in tags:
        git(checkout, "tag", "--annotate", "--message=released", tag)
    assert name(checkout) == called


def test_a_commit_after_the_release_is_none(checkout: Path) -> None:
    git(checkout, "init", "--quiet")
    commit(checkout)
    git(checkout, "tag", "v1.2.3")
    commit(checkout)
    assert name(checkout) == f"marchproxy-beta-{COMMITTED}"
    assert name(checkout, SOURCE_DATE_EPOCH="1800000000") == "marchproxy-beta-1800000000"


def test_without_git_it_is_named_by_its_version_file(checkout: Path) -> None:
    assert name(checkout) == f"marchproxy-beta-{BUILD}"
