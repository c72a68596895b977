"""How a command ends: exit codes, and what an error looks like to an operator."""

import os
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Any, TextIO

from marchproxy.cli.context import Environment
from marchproxy.client.errors import InvalidPolicy, Refused
from marchproxy.client.words import printable
from marchproxy.model.errors import (
    Conflict,
    DaemonNotRunning,
    InvalidValue,
    MarchproxyError,
    NotFound,
    NotPermitted,
)

_LONGEST = 1000
"""Characters of a message that are shown; a value of a megabyte is cut in the middle."""


class ExitCode(IntEnum):
    """What scripts rely on."""

    DONE = 0
    FAILED = 1
    """The command could not do it, or `check` and `status` found something wrong."""
    USAGE = 2
    """The command line is wrong: an unknown flag, or a question and nobody to ask but `--yes`."""
    NOT_FOUND = 3
    CONFLICT = 4
    INVALID = 5
    """A value, a file or a policy that cannot be meant."""
    NO_DAEMON = 6
    NOT_PERMITTED = 7
    DENIED = 10
    """Only `explain`: the answer is deny."""
    INTERRUPTED = 130
    """Ctrl-C, as shells report it: 128 + SIGINT."""
    NO_READER = 141
    """Whoever read stdout went away (`| head`): 128 + SIGPIPE."""


class Declined(MarchproxyError):
    """The operator was asked and said no."""


class InvalidFile(MarchproxyError):
    """A file that is no document at all; what is wrong inside a document is an `InvalidValue`."""


class WrongUsage(MarchproxyError):
    """The command line cannot be carried out as it stands: flags that contradict or are missing."""


_CODES: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (InvalidValue, ExitCode.INVALID),
    (InvalidFile, ExitCode.INVALID),
    (InvalidPolicy, ExitCode.INVALID),
    (NotFound, ExitCode.NOT_FOUND),
    (Conflict, ExitCode.CONFLICT),
    (DaemonNotRunning, ExitCode.NO_DAEMON),
    (NotPermitted, ExitCode.NOT_PERMITTED),
    (WrongUsage, ExitCode.USAGE),
    (PermissionError, ExitCode.NOT_PERMITTED),
    (BrokenPipeError, ExitCode.NO_READER),
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
)


_CODES_THERE = {kind.__name__: code for kind, code in _CODES}
"""The same by name: an error is the same error when the daemon finds it."""


def ended(environment: Environment, work: Callable[[], object]) -> int:
    """Do the work of a command and return its exit code. No exception leaves this function."""
    try:
        result = work()
        environment.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        code = report(error, environment)
        if code == ExitCode.NO_READER:
            _discard(environment.stdout)
        return code
    return result if isinstance(result, int) else ExitCode.DONE


def _discard(stream: TextIO) -> None:
    """Point a stream without a reader at nothing, or the interpreter complains when it flushes at exit."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)


def exit_code(error: BaseException) -> int:
    """The exit code for an error; what nobody foresaw is a failure."""
    if _is_usage(error):
        return int(getattr(error, "exit_code", ExitCode.USAGE))
    if isinstance(error, Refused):
        return _CODES_THERE.get(error.kind, ExitCode.FAILED)
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)


def report(error: BaseException, environment: Environment) -> int:
    """Tell the operator, on stderr, and return the exit code. Only `-vv` shows a traceback."""
    message, hint = _describe(error)
    if message:
        _line(environment, "error", message, "red")
    if hint:
        _line(environment, "hint", hint, "yellow")
    if message and environment.verbosity >= 2:
        import traceback

        traceback.print_exception(error, file=environment.stderr)
    return exit_code(error)


def warn(environment: Environment, message: str, hint: str = "") -> None:
    """Tell the operator about something that did not keep the command from its work."""
    _line(environment, "warning", message, "yellow")
    if hint:
        _line(environment, "hint", hint, "yellow")


def _line(environment: Environment, label: str, text: str, colour: str) -> None:
    label = environment.colour(f"{label}:", colour, stream=environment.stderr)
    environment.stderr.write(f"{label} {_shown(text)}\n")


def _shown(text: str) -> str:
    if len(text) > _LONGEST:
        half = _LONGEST // 2
        text = f"{text[:half]} … {len(text) - _LONGEST} characters … {text[-half:]}"
    return printable(text)


def _describe(error: BaseException) -> tuple[str, str]:
    """Message and hint; no message where silence is right."""
    if isinstance(error, BrokenPipeError | KeyboardInterrupt):
        return "", ""
    if isinstance(error, MarchproxyError):
        return error.message, error.hint
    if _is_usage(error):
        return _describe_usage(error)
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}", ""
    name = type(error).__name__
    return f"this should not have happened, sorry: {name}: {error}", "-vv shows where; please report it"


def _is_usage(error: Any) -> bool:
    """Whether the command line was at fault. Where typer is not loaded, none was read (see `glance`)."""
    typer = sys.modules.get("typer")
    return typer is not None and isinstance(error, typer.TyperException)


def _describe_usage(error: Any) -> tuple[str, str]:
    context = getattr(error, "ctx", None)
    message: str = error.format_message().rstrip(".")
    message = message[:1].lower() + message[1:]
    return message, f"{context.command_path} --help explains the command" if context else ""
