"""What is built is built once a run; systems that boot with it are one for each test."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from marchproxy.version import VERSION
from rig import Rig
from rig.servers import start_echo, start_http
from tests.packaging import building
from tests.packaging.booted import CHANGE_MAPPING, CONSOLE, DEFINE, INSTALL, NEWER, NEWER_STORE, SUITES
from tests.packaging.box import Box


@pytest.fixture(scope="session")
def payload() -> Path:
    return building.payload()


@pytest.fixture(scope="session")
def binary() -> Path:
    return building.binary()


@pytest.fixture(scope="session")
def package() -> Path:
    return building.package()


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as built:
        start_http(built.server)
        start_echo(built.server)
        yield built


@pytest.fixture(scope="session")
def files(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This package, and one that differs in its version alone."""
    folder = tmp_path_factory.mktemp("files")
    shutil.copy(package, folder / "this.deb")
    unpacked = tmp_path_factory.mktemp("newer") / "package"
    subprocess.run(["dpkg-deb", "-R", package, unpacked], check=True)
    control = unpacked / "DEBIAN" / "control"
    control.write_text(control.read_text().replace(f"Version: {VERSION}\n", f"Version: {NEWER}\n"))
    [version] = unpacked.glob("usr/lib/marchproxy/lib/python3.*/site-packages/marchproxy/.version")
    version.write_text(f"v{NEWER}\n")
    command = [
        "dpkg-deb",
        "--root-owner-group",
        "-Zgzip",
        "-z1",
        "-b",
        str(unpacked),
        str(folder / "newer.deb"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(unpacked)
    (folder / "console.py").write_text(CONSOLE)
    (folder / "newer_store.py").write_text(NEWER_STORE)
    (folder / "change_mapping.py").write_text(CHANGE_MAPPING)
    # A release, where there is one to come from; else what differs in its version alone.
    previous = os.environ.get("MARCHPROXY_TEST_PREVIOUS")
    shutil.copy(previous or folder / "newer.deb", folder / "other.deb")
    return folder


@pytest.fixture(params=SUITES)
def box(request: pytest.FixtureRequest, rig: Rig, files: Path) -> Iterator[Box]:
    with Box(request.param, rig.middle.name, files) as booted:
        yield booted


@pytest.fixture
def installed(box: Box) -> Box:
    box.ok(INSTALL)
    return box


@pytest.fixture
def defined(installed: Box) -> Box:
    """With listeners, and a daemon that serves them."""
    installed.ok(DEFINE)
    return installed
