"""The same source gives the same bytes, wherever and by whomever it is built."""

import subprocess
from pathlib import Path

import pytest

from marchproxy.version import VERSION
from tests.packaging import building
from tests.repo.tree import ROOT

pytestmark = [
    pytest.mark.requires(commands=["dpkg-buildpackage", "dh", "patchelf"]),
    pytest.mark.timeout(900),
]


def test_built_again_in_another_folder_all_is_the_same(binary: Path, package: Path) -> None:
    wheel = building.wheel(binary.parent)
    done = subprocess.run(
        ["packaging/again.sh", binary.parent],
        cwd=ROOT,
        env=building.ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    same = [line for line in done.stdout.splitlines() if ": the same, " in line]
    archive = f"marchproxy-{VERSION}.tar.gz"
    expected = [archive, wheel.name, binary.name, package.name, f"marchproxy-diag_{VERSION}_all.deb"]
    assert [line.removeprefix("==> ").partition(":")[0] for line in same] == expected
