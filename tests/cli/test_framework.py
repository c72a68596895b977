"""What holds for every command: help, examples, `-v`, flags after the verb."""

import shlex
from typing import Any

import pytest
import typer
from typer.core import TyperCommand

from marchproxy.cli.framework import LazyCommands, noun, single, verb
from tests.cli.commands import commands, option
from tests.cli.console import Console

ALL = [pytest.param(words, command, id=words) for words, command in commands()]

IMPERATIVES = {
    *(
        "Add",
        "Change",
        "Create",
        "Connect",
        "Explain",
        "Fetch",
        "Forget",
        "Generate",
        "Issue",
        "Keep",
        "Learn",
        "List",
        "Look",
        "Make",
        "Manage",
        "Print",
        "Propose",
        "Put",
    ),
    *("Remove", "Replace", "Return", "Run", "Show", "Take", "Write"),
}


@pytest.mark.parametrize(("words", "command"), ALL)
def test_help_begins_with_an_imperative_and_ends_without_a_full_stop(
    words: str, command: TyperCommand
) -> None:
    first, _, rest = (command.help or "").partition("\n")
    assert first.split()[0] in IMPERATIVES
    assert not first.endswith(".")
    assert rest == "" or rest.rstrip().endswith(".")


@pytest.mark.parametrize(("words", "command"), ALL)
def test_every_flag_and_argument_is_explained_without_a_full_stop(words: str, command: TyperCommand) -> None:
    for param in command.params:
        text: str = getattr(param, "help", None) or ""
        first = text.split(maxsplit=1)[0].rstrip(":,")
        assert first[0].isupper() or first[0].isdigit() or first in _VALUES, (param.name, text)
        assert not text.endswith("."), (param.name, text)


@pytest.mark.parametrize(("words", "command"), ALL)
def test_examples_are_command_lines_of_this_command(words: str, command: TyperCommand) -> None:
    examples = (command.epilog or "").splitlines()
    assert examples
    for example in examples:
        typed = [word for word in shlex.split(example.split("|")[0].split(">")[0]) if "=" not in word]
        if typed and typed[0] == "marchproxy":
            assert " ".join(typed[1:]).startswith(words), example
        else:
            assert f"marchproxy {words}" in example


@pytest.mark.parametrize(("words", "command"), ALL)
def test_examples_name_only_flags_that_exist(words: str, command: TyperCommand) -> None:
    known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    for example in (command.epilog or "").splitlines():
        # A comment after a pipe belongs to another program.
        flags = [word for word in shlex.split(example.split("|")[0]) if word.startswith("-") and word != "-"]
        assert set(flags) <= known, example


@pytest.mark.parametrize(("words", "command"), ALL)
def test_help_works_for_every_command(console: Console, words: str, command: TyperCommand) -> None:
    result = console.ok(*words.split(), "--help")
    assert result.out.startswith(f"Usage: marchproxy {words} ")
    assert "\nExamples:\n" in result.out
    assert "--verbose" in result.out
    assert result.err == ""


@pytest.mark.parametrize("words", ["service", "mapping", "cluster", "interface", "revision"])
def test_a_noun_alone_shows_its_help_and_fails(console: Console, words: str) -> None:
    result = console(words)
    assert (result.code, result.out) == (2, "")
    assert "Commands:" in result.err
    assert console.ok(words, "--help").out == result.err


def test_flags_come_after_the_verb(site: Console) -> None:
    assert site("--output", "json", "service", "list").code == 2
    assert site("service", "--output", "json", "list").code == 2
    assert site("service", "list", "--output", "json").code == 0


@pytest.mark.parametrize(("flag", "level"), [("-v", 1), ("-vv", 2), ("-vvv", 3), ("--verbose", 1)])
def test_verbosity_is_counted(console: Console, flag: str, level: int) -> None:
    seen = []
    app = single()

    @verb(app, "look", "marchproxy look")
    def look(context: typer.Context) -> None:
        """Look"""
        seen.append(context.obj.verbosity)

    command: Any = typer.main.get_command(app)
    with command.make_context("look", [flag], obj=console.environment()) as context:
        command.invoke(context)
    assert seen == [level]


def test_lazy_commands_load_what_is_asked_for_once() -> None:
    commands = LazyCommands("marchproxy.cli", {"status": "", "nowhere": ""})
    assert list(commands) == ["status", "nowhere"]
    assert len(commands) == 2
    assert commands["status"] is commands["status"]
    assert commands.get("service") is None
    with pytest.raises(ModuleNotFoundError):
        commands["nowhere"]


def test_a_noun_holds_its_verbs_in_order() -> None:
    app = noun("Manage things")
    for name in ("b", "a"):
        verb(app, name, f"marchproxy thing {name}")(lambda: None)
    command: Any = typer.main.get_command(app)
    assert list(command.commands) == ["b", "a"]
    assert option(command.commands["a"], "-v") is not None


_VALUES = {"tcp", "none", "inside", "auto", "allow"}
"""Help that lists the values of a flag begins with the first of them."""
