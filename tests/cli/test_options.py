"""Options that many commands share mean the same everywhere."""

import pytest
from typer.core import TyperCommand

from tests.cli.commands import commands, option
from tests.cli.console import Console

ALL = dict(commands())
REMOVED = ("block", "cluster", "service", "mapping", "interface", "limit", "listener", "cert")
SILENT = {
    "run",
    "autostart",
    "cert pull",
    "capture",
    "backup",
    "restore",
    "tui",
    "confirm",
    "connect",
    "learn forget",
    "token revoke",
    *(f"{noun} remove" for noun in REMOVED),
}
"""Commands that print no data."""
ASKING = {
    *(f"{noun} remove" for noun in REMOVED),
    *("apply", "detach", "learn forget", "reset", "restore", "revision rollback"),
    "init",  # the wizard, which then asks for nothing
}


def test_output_wherever_data_is_printed() -> None:
    assert {words for words, command in ALL.items() if option(command, "--output") is None} == SILENT


def test_output_takes_three_forms_and_export_two() -> None:
    for words, command in ALL.items():
        found = option(command, "--output")
        if found is not None:
            expected = ["json", "yaml"] if words == "export" else ["table", "json", "yaml"]
            assert list(found.type.choices) == expected


def test_yes_wherever_something_is_lost() -> None:
    assert {words for words, command in ALL.items() if option(command, "--yes")} == ASKING


def test_cluster_defaults_to_default() -> None:
    for words, command in ALL.items():
        found = option(command, "--cluster")
        if words == "cert pull":
            # Of all clusters, as the daemon does it.
            assert found.default == ""
        elif (
            words.split()[0] in {"service", "mapping", "token", "cert", "explain", "doctor"}
            or words == "learn propose"
        ):
            assert found.default == "default"
        elif words in {"apply", "diff", "export"}:
            assert found.default is None
        else:
            assert found is None


@pytest.mark.parametrize("value", ["xml", "", "JSON "])
def test_another_form_of_output_is_wrong_usage(site: Console, value: str) -> None:
    result = site("service", "list", "--output", value)
    assert (result.code, result.out) == (2, "")
    assert "'table', 'json', 'yaml'" in result.err


def test_no_flag_is_given_twice_in_one_command() -> None:
    for command in ALL.values():
        assert isinstance(command, TyperCommand)
        flags = [flag for param in command.params for flag in (*param.opts, *param.secondary_opts)]
        assert len(flags) == len(set(flags))
