"""Tables, JSON and YAML of the same data."""

import json

import pytest
import yaml

from marchproxy.cli.context import Environment
from marchproxy.cli.output import Output, show_one, show_rows
from tests.cli.console import Console, Screen

THING: dict[str, object] = {
    "name": "web",
    "port": None,
    "tags": ["a", "b"],
    "tls": False,
    "description": "ünï: 'quoted'\\",
}


@pytest.mark.parametrize("rows", [[], [THING], [THING, {**THING, "name": "yes"}]])
def test_programs_read_back_what_was_shown(console: Console, rows: list[dict[str, object]]) -> None:
    assert json.loads(rows_as(console, Output.JSON, rows)) == rows
    assert yaml.safe_load(rows_as(console, Output.YAML, rows)) == rows


def test_json_keeps_its_keys_in_order_and_letters_as_they_are(console: Console) -> None:
    text = rows_as(console, Output.JSON, [THING])
    assert list(json.loads(text)[0]) == list(THING)
    assert "ünï" in text


def test_one_thing_as_lines(console: Console) -> None:
    environment = console.environment()
    show_one(environment, Output.TABLE, {**THING, "health_interval": 5, "empty": ""})
    assert shown(environment).splitlines() == [
        "name             web",
        "tags             a",
        "                 b",
        "tls              no",
        "description      ünï: 'quoted'\\",
        "health interval  5",
    ]


def test_titles_are_bold_on_a_terminal(console: Console) -> None:
    environment = console.environment(tty=True)
    show_rows(environment, Output.TABLE, [THING], {"NAME": "name"})
    assert shown(environment) == "\x1b[1mNAME\x1b[0m\nweb\n"


def rows_as(console: Console, output: Output, rows: list[dict[str, object]]) -> str:
    environment = console.environment()
    show_rows(environment, output, rows, {"NAME": "name"})
    return shown(environment)


def shown(environment: Environment) -> str:
    assert isinstance(environment.stdout, Screen)
    return environment.stdout.getvalue()
