"""What a command takes from outside."""

import pytest

from marchproxy.cli.context import Environment
from tests.cli.console import Console, Screen


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
