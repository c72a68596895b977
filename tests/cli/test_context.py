"""What a command takes from outside."""

from pathlib import Path

import pytest

from marchproxy.cli.context import Environment, printable
from tests.cli.console import Console, Screen


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({}, None),
        ({"MARCHPROXY_STATE_DIR": ""}, None),
        ({"MARCHPROXY_STATE_DIR": "/a"}, Path("/a")),
        ({"MARCHPROXY_STATE_DIR": "/a", "DATABASE_URL": "postgresql://db/x"}, None),
        ({"MARCHPROXY_STATE_DIR": "/a", "DB_TYPE": "mysql"}, None),
    ],
)
def test_state_folder(variables: dict[str, str], folder: Path | None) -> None:
    assert Environment(variables=variables).state_dir == folder


def test_control_socket() -> None:
    assert Environment(variables={}).control_socket == Path("/run/marchproxy/control.sock")
    assert Environment(variables={"MARCHPROXY_RUNTIME_DIR": "/r"}).control_socket == Path("/r/control.sock")


def test_width_is_for_terminals(console: Console) -> None:
    console.variables["COLUMNS"] = "77"
    assert console.environment().width is None
    assert console.environment(tty=True).width == 77
    console.variables["COLUMNS"] = "wide"
    assert console.environment(tty=True).width is None


@pytest.mark.parametrize(
    ("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colour_is_for_terminals_that_want_it(variables: dict[str, str], coloured: bool) -> None:
    for tty in (True, False):
        environment = Environment(stdout=Screen(tty=tty), variables=variables)
        assert environment.colour("x", "red") == ("\x1b[31mx\x1b[0m" if tty and coloured else "x")


def test_interactive_needs_someone_who_reads_and_types(console: Console) -> None:
    assert console.environment(tty=True).interactive
    assert not console.environment().interactive
    half = console.environment(tty=True)
    half.stderr = Screen(tty=False)
    assert not half.interactive


def test_details_are_said_with_v(console: Console) -> None:
    environment = console.environment()
    environment.detail("quiet")
    environment.verbosity = 1
    environment.detail("loud")
    assert isinstance(environment.stderr, Screen)
    environment.debug("quiet")
    environment.verbosity = 3
    environment.debug("step")
    assert environment.stderr.getvalue() == "loud\nstep\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain — ünïcode 漢字", "plain — ünïcode 漢字"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\u202e\x00\udc80", "\\u202e\\x00\\udc80"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).isprintable()
