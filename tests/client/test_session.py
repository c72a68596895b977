"""Where the operator came from."""

import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from marchproxy.cli.context import Environment
from marchproxy.client.session import Session, ssh_session

SAID = "198.51.100.7 50000 192.0.2.5 2222"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A shell of an SSH session, in it sudo, in that our parent, which knows nothing of it."""
    processes = ((os.getppid(), 20, "PATH=/bin"), (20, 10, f"PATH=/bin\0SSH_CONNECTION={SAID}"), (10, 1, ""))
    for process, parent, variables in processes:
        (tmp_path / str(process)).mkdir()
        (tmp_path / str(process) / "environ").write_text(variables + "\0")
        (tmp_path / str(process) / "stat").write_text(f"{process} (a ) name) S {parent} 0 0\n")
    return tmp_path


def test_the_variable_says_it(proc: Path) -> None:
    said = Environment({"SSH_CONNECTION": "203.0.113.9 1 192.0.2.5 22"})
    assert ssh_session(said, proc) == Session(ip_address("203.0.113.9"), 22)
    assert ssh_session(Environment({"SSH_CONNECTION": "203.0.113.9"}), proc) == Session(
        ip_address("203.0.113.9"), None
    )


def test_behind_sudo_an_ancestor_does(proc: Path) -> None:
    assert ssh_session(Environment({}), proc) == Session(ip_address("198.51.100.7"), 2222)


@pytest.mark.parametrize("text", ["", "nonsense", "198.51.100.7 1 192.0.2.5 nonsense"])
def test_what_is_no_session(proc: Path, text: str) -> None:
    assert ssh_session(Environment({"SSH_CONNECTION": text}), proc) is None


def test_on_a_console_there_is_none(proc: Path, tmp_path: Path) -> None:
    (proc / "20" / "environ").write_text("PATH=/bin\0")
    assert ssh_session(Environment({}), proc) is None
    assert ssh_session(Environment({}), tmp_path / "no proc") is None
