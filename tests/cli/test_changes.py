"""Changes as rows and as lines."""

from typing import Any

from marchproxy.cli.changes import show_changes
from marchproxy.cli.output import Output
from marchproxy.model.change import Change
from tests.cli.console import Console, Screen
from tests.client.test_changes import ADDED, CHANGED, REMOVED


def test_lines_show_each_field_that_differs_and_hide_nothing(console: Console) -> None:
    assert lines(console, ADDED, CHANGED, REMOVED) == [
        "+ interface eth0",
        "    role: inside",
        "~ service web",
        "    addresses: 10.0.0.1 -> 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4",
        "    port: 80 -> -",
        "    tls: - -> yes",
        "- mapping lab/m",
        "    description: x\\x1b[31m",
    ]


def test_colour_on_a_terminal(console: Console) -> None:
    assert lines(console, ADDED, tty=True)[0] == "\x1b[32m+ interface eth0\x1b[0m"


def test_no_difference_is_said_to_people_and_empty_for_programs(console: Console) -> None:
    environment = console.environment()
    show_changes(environment, Output.TABLE, [])
    assert isinstance(environment.stderr, Screen)
    assert environment.stderr.getvalue() == "no difference\n"
    environment = console.environment()
    show_changes(environment, Output.JSON, [])
    assert isinstance(environment.stdout, Screen)
    assert environment.stdout.getvalue() == "[]\n"


def lines(console: Console, *changes: Change, **settings: Any) -> list[str]:
    environment = console.environment(**settings)
    show_changes(environment, Output.TABLE, changes)
    assert isinstance(environment.stdout, Screen)
    return environment.stdout.getvalue().splitlines()
