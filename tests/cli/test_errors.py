"""Exit codes, and what errors look like."""

import pytest
import typer

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import Declined, ExitCode, InvalidFile, WrongUsage, exit_code, report, warn
from marchproxy.client.errors import InvalidPolicy, Refused
from marchproxy.model.errors import (
    Conflict,
    DaemonNotRunning,
    InvalidValue,
    MarchproxyError,
    NotFound,
    NotPermitted,
)
from tests.cli.console import Console, Screen


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MarchproxyError("x"), 1),
        (Declined("x"), 1),
        (Refused("Conflict", "x"), 4),
        (Refused("InvalidValue", "x"), 5),
        (Refused("TooManyConnections", "x"), 1),
        (RuntimeError("x"), 1),
        (OSError(5, "Input/output error"), 1),
        (WrongUsage("x"), 2),
        (typer.BadParameter("x"), 2),
        (NotFound("service", "x"), 3),
        (Conflict("x"), 4),
        (InvalidValue("field", "x", "y"), 5),
        (InvalidFile("x"), 5),
        (InvalidPolicy("x"), 5),
        (DaemonNotRunning("x"), 6),
        (NotPermitted("x"), 7),
        (PermissionError(13, "Permission denied"), 7),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
    ],
)
def test_each_error_has_its_code(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MarchproxyError("it is broken", hint="mend it"), "error: it is broken\nhint: mend it\n"),
        (MarchproxyError("it is broken"), "error: it is broken\n"),
        (NotFound("service", "web"), "error: service 'web' does not exist\n"),
        (OSError(28, "No space left on device", "/x"), "error: /x: No space left on device\n"),
        (MarchproxyError("a\x1b[2Jb\nc\udcff"), "error: a\\x1b[2Jb\\nc\\udcff\n"),
        (KeyboardInterrupt(), ""),
        (BrokenPipeError(), ""),
        (
            ZeroDivisionError("division by zero"),
            "error: this should not have happened, sorry: ZeroDivisionError: division by zero\n"
            "hint: -vv shows where; please report it\n",
        ),
    ],
)
def test_what_an_operator_reads(console: Console, error: BaseException, text: str) -> None:
    assert said(console.environment(), error) == text


def test_a_megabyte_is_cut_in_the_middle(console: Console) -> None:
    text = said(console.environment(), MarchproxyError("a" + "x" * 1_000_000 + "z", hint="less"))
    assert len(text) < 1200
    assert "999002 characters" in text
    assert text.startswith("error: ax")
    assert text.endswith("xz\nhint: less\n")


def test_a_traceback_only_with_vv(console: Console) -> None:
    environment = console.environment()
    environment.verbosity = 1
    assert not said(environment, ValueError("x")).endswith("\nValueError: x\n")
    environment.verbosity = 2
    assert said(environment, ValueError("x")).endswith("\nValueError: x\n")


def test_silence_is_kept_with_vv(console: Console) -> None:
    environment = console.environment()
    environment.verbosity = 2
    assert said(environment, BrokenPipeError()) == ""


def test_labels_have_colour_on_a_terminal_alone(console: Console) -> None:
    terminal = console.environment(tty=True)
    assert said(terminal, MarchproxyError("x")) == "\x1b[31merror:\x1b[0m x\n"
    console.variables["NO_COLOR"] = "1"
    assert said(console.environment(tty=True), MarchproxyError("x")) == "error: x\n"


def test_a_warning_has_its_own_word(console: Console) -> None:
    environment = console.environment()
    warn(environment, "slow", "be patient")
    assert screen(environment) == "warning: slow\nhint: be patient\n"


def test_codes_are_a_contract_with_scripts() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "DONE": 0,
        "FAILED": 1,
        "USAGE": 2,
        "NOT_FOUND": 3,
        "CONFLICT": 4,
        "INVALID": 5,
        "NO_DAEMON": 6,
        "NOT_PERMITTED": 7,
        "DENIED": 10,
        "INTERRUPTED": 130,
        "NO_READER": 141,
    }


@pytest.mark.parametrize(
    "words",
    [
        "",
        "nosuch",
        "service",
        "service nosuch",
        "service add",
        "status --nosuch",
        "service add a b --address 1.1.1.1",
    ],
)
def test_wrong_usage_is_2_and_says_where_help_is(console: Console, words: str) -> None:
    result = console(*words.split())
    assert (result.code, result.out) == (2, "")
    assert "--help" in result.err


def said(environment: Environment, error: BaseException) -> str:
    """What `report` writes on stderr."""
    report(error, environment)
    return screen(environment)


def screen(environment: Environment) -> str:
    assert isinstance(environment.stderr, Screen)
    return environment.stderr.getvalue()
