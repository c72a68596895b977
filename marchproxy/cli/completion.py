"""Shell completion: the scripts of bash, zsh and fish, and the answers to what they ask."""

from importlib import import_module
from pathlib import Path
from typing import Any

from marchproxy.cli.context import Environment
from marchproxy.model.errors import InvalidValue

PROGRAM = "marchproxy"
_completion: Any = import_module("typer.completion")
"""Typer's own module, loaded anyway; its functions are not exported for type checkers."""
VARIABLE = "_MARCHPROXY_COMPLETE"
"""Set by the scripts: the question a shell asks, such as `complete_bash`."""
SHELLS = ("bash", "zsh", "fish")


def current_shell(environment: Environment) -> str:
    """The shell that called us, or the user's login shell where that cannot be seen."""
    import shellingham  # type: ignore[import-untyped]  # published without type information

    try:
        name: str = shellingham.detect_shell()[0]
    except shellingham.ShellDetectionFailure:
        name = ""
    return name if name in SHELLS else Path(environment.variables.get("SHELL", "")).name


def show(environment: Environment, shell: str) -> None:
    """Print the script that a shell evaluates to complete our command lines."""
    environment.stdout.write(_script(shell) + "\n")


def install(environment: Environment, shell: str) -> None:
    """Put the script where the user's shell finds it."""
    _script(shell)
    name, path = _completion.install(shell=shell, prog_name=PROGRAM)
    environment.note(f"{name} completion is installed in {path}; it works in the next shell")


def answer(environment: Environment, command: Any, question: str) -> int:
    """Answer the shell's question for what may follow."""
    _completion.completion_init()
    code: int = _completion.shell_complete(command, {"obj": environment}, PROGRAM, VARIABLE, question)
    return code


def _script(shell: str) -> str:
    if shell not in SHELLS:
        raise InvalidValue("shell", shell, "one of " + ", ".join(SHELLS))
    script: str = _completion.get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell)
    return script
