"""Changes as rows and as lines."""

from typing import Any

from marchproxy.cli.changes import action, row, show_changes, summary
from marchproxy.cli.output import Output
from marchproxy.model.change import Change, Kind
from tests.cli.console import Console, Screen

ADDED = Change(Kind.INTERFACE, "", "eth0", None, {"name": "eth0", "role": "inside"})
CHANGED = Change(
    Kind.SERVICE,
    "default",
    "web",
    {"name": "web", "addresses": ["10.0.0.1"], "port": 80},
    {"name": "web", "addresses": ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"], "tls": True},
)
REMOVED = Change(Kind.MAPPING, "lab", "m", {"name": "m", "description": "x\x1b[31m"}, None)


def test_actions() -> None:
    assert [action(change) for change in (ADDED, CHANGED, REMOVED)] == ["add", "change", "remove"]
    assert summary([ADDED, CHANGED, REMOVED, ADDED]) == "2 added, 1 changed, 1 removed"
    assert summary([REMOVED]) == "1 removed"


def test_rows_have_the_same_keys() -> None:
    assert row(ADDED) == {
        "action": "add",
        "kind": "interface",
        "cluster": "",
        "name": "eth0",
        "before": None,
        "after": {"name": "eth0", "role": "inside"},
    }
    assert row(ADDED).keys() == row(REMOVED).keys()


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
