"""The Debian package as it lies there: what is in it, what it asks for, what Debian's own checker says."""

import platform
import re
import subprocess
from pathlib import Path

import pytest

from marchproxy.cli.main import COMMANDS
from marchproxy.version import VERSION
from tests.repo.tree import ROOT

pytestmark = [
    pytest.mark.requires(commands=["dpkg-buildpackage", "dh", "patchelf", "lintian"]),
    pytest.mark.timeout(900),
]


def field(package: Path, name: str) -> str:
    return subprocess.check_output(["dpkg-deb", "--field", package, name], text=True).strip()


@pytest.fixture(scope="module")
def contents(package: Path) -> dict[str, str]:
    """Every path in it, with its mode."""
    listed = subprocess.check_output(["dpkg-deb", "--contents", package], text=True)
    rows = [line.split(None, 5) for line in listed.splitlines()]
    return {row[5].removeprefix(".").partition(" -> ")[0]: row[0] for row in rows}


def test_it_has_the_version_of_everything_else(package: Path) -> None:
    assert field(package, "Version") == VERSION
    assert package.name == f"marchproxy_{VERSION}_amd64.deb"


def test_the_changelog_is_the_newest_release_notes(package: Path, tmp_path: Path) -> None:
    name = "./usr/share/doc/marchproxy/changelog.gz"
    script = f"dpkg-deb --fsys-tarfile {package} | tar -x -O {name} | gzip -dc"
    changelog = subprocess.check_output(["sh", "-c", script], text=True)
    assert changelog.startswith(f"marchproxy ({VERSION}) unstable; urgency=medium\n\n  * ")
    notes = (ROOT / "docs" / "RELEASE_NOTES.md").read_text().split("\n## ")[1]
    assert len(re.findall(r"^  \* ", changelog, re.MULTILINE)) == len(re.findall(r"^- ", notes, re.MULTILINE))


def test_it_asks_for_libc_and_systemd_alone(package: Path) -> None:
    assert re.fullmatch(
        r"libc6 \(>= 2\.\d+\), systemd \| systemd-standalone-sysusers \| systemd-sysusers",
        field(package, "Depends"),
    )
    # What is recommended and cannot be had keeps apt from installing where there is no network.
    assert field(package, "Recommends") == ""
    suggested = field(package, "Suggests").split(", ")
    assert {"bpftool", f"marchproxy-diag (= {VERSION})"} <= set(suggested)


def test_its_diagnostics_ask_for_the_compiler_of_questions(package: Path) -> None:
    diagnostics = package.with_name(f"marchproxy-diag_{VERSION}_all.deb")
    assert field(diagnostics, "Depends") == f"marchproxy (= {VERSION}), python3-bpfcc"


def test_its_libraries_ask_for_no_newer_glibc_than_ubuntu_22_04_has(package: Path) -> None:
    """What is taken from the machine that it is built on asks for that of Debian 12 at most."""
    if int(platform.libc_ver()[1].split(".")[1]) > 36:
        pytest.skip("a package that is built here needs a glibc as new as this machine's")
    found = re.match(r"libc6 \(>= 2\.(\d+)\)", field(package, "Depends"))
    assert found is not None
    assert int(found[1]) <= 35


def test_it_is_not_large(package: Path) -> None:
    assert package.stat().st_size <= 30_000_000
    assert int(field(package, "Installed-Size")) <= 120_000


def test_what_an_administrator_expects_is_there(contents: dict[str, str]) -> None:
    expected = {
        "/etc/marchproxy/marchproxy.env",
        "/usr/bin/marchproxy",
        "/usr/lib/sysusers.d/marchproxy.conf",
        "/usr/lib/tmpfiles.d/marchproxy.conf",
        "/usr/share/bash-completion/completions/marchproxy",
        "/usr/share/fish/vendor_completions.d/marchproxy.fish",
        "/usr/share/zsh/vendor-completions/_marchproxy",
        "/usr/share/man/man1/marchproxy.1.gz",
        *(f"/usr/share/man/man1/marchproxy-{name}.1.gz" for name in COMMANDS),
    }
    assert expected <= contents.keys()
    assert [path for path in contents if path.endswith("/marchproxy.service")] != []


def test_nobody_but_root_can_change_what_is_run(contents: dict[str, str]) -> None:
    assert [
        path for path, mode in contents.items() if mode[0] != "l" and (mode[5] == "w" or mode[8] == "w")
    ] == []
    assert [path for path, mode in contents.items() if "s" in mode[1:]] == []


def test_lintian_has_nothing_to_say(package: Path) -> None:
    """Beyond the overrides, each of which says why."""
    both = [package, package.with_name(f"marchproxy-diag_{VERSION}_all.deb")]
    command = [
        "lintian",
        "--fail-on",
        "error,warning",
        "--tag-display-limit",
        "0",
        "--allow-root",
        *map(str, both),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
