"""Fixtures of the command line's tests."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cli.console import Answers, Console, Daemon

SITE: dict[str, Any] = {
    "services": [
        {"name": "clients", "addresses": ["10.1.0.0/16"]},
        {"name": "web", "addresses": ["10.2.0.10", "10.2.0.11"], "port": 8080},
    ],
    "mappings": [
        {
            "name": "cw",
            "sources": ["clients"],
            "destinations": ["web"],
            "protocols": ["tcp"],
            "listen": "10.1.0.1:80",
        }
    ],
}


@pytest.fixture
def console() -> Iterator[Console]:
    """A shell in front of an appliance that is to be. Its folder's name is short: a socket lives in it."""
    with tempfile.TemporaryDirectory(prefix="mp-") as folder:
        yield Console(Path(folder))


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of `site`: sixty milliseconds to make, two to copy."""
    console = Console(tmp_path_factory.mktemp("furnished"))
    console.ok("init")
    console.ok("apply", "-f", "-", stdin=json.dumps(SITE))
    return console.folder / "state"


@pytest.fixture
def site(console: Console, furnished: Path) -> Console:
    """An appliance with clients, web, and the mapping cw from one to the other; revision 2."""
    shutil.copytree(furnished, console.folder / "state")
    return console


@pytest.fixture
def daemon(console: Console) -> Iterator[Callable[[Answers], Daemon]]:
    """Starts a stand-in for the daemon of `console`; it ends with the test."""
    with ExitStack() as stack:
        yield lambda answers: stack.enter_context(Daemon(console.control_socket, answers))
