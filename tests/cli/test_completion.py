"""Shell completion: scripts, and the answers to what shells ask."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from marchproxy.cli import completion
from marchproxy.cli.main import COMMANDS
from tests.cli.console import Console

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("shell", "mark"),
    [
        ("bash", "complete -o default -F _marchproxy_completion marchproxy"),
        ("zsh", "#compdef marchproxy"),
        ("fish", "complete --command marchproxy"),
    ],
)
def test_scripts(console: Console, shell: str, mark: str) -> None:
    assert mark in console.ok("--show-completion", shell).out


@pytest.mark.parametrize("flag", ["--show-completion", "--install-completion"])
def test_another_shell_is_refused(console: Console, flag: str) -> None:
    result = console(flag, "tcsh")
    assert result.code == 5
    assert "bash, zsh, fish" in result.err


def test_without_a_name_it_is_the_shell_that_calls(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "current_shell", lambda environment: "fish")
    assert console.ok("--show-completion").out == console.ok("--show-completion", "fish").out


def test_where_no_shell_can_be_seen_one_has_to_be_named(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "current_shell", lambda environment: "")
    assert console("--show-completion").code == 5


@pytest.mark.parametrize(
    ("detected", "variable", "expected"),
    [
        ("zsh", "/bin/bash", "zsh"),
        ("tcsh", "/usr/bin/fish", "fish"),
        (None, "/bin/bash", "bash"),
        (None, "", ""),
    ],
)
def test_current_shell(
    console: Console, monkeypatch: pytest.MonkeyPatch, detected: str | None, variable: str, expected: str
) -> None:
    import shellingham  # type: ignore[import-untyped]  # published without type information

    def detect() -> tuple[str, str]:
        if detected is None:
            raise shellingham.ShellDetectionFailure
        return detected, detected

    monkeypatch.setattr(shellingham, "detect_shell", detect)
    console.variables["SHELL"] = variable
    assert completion.current_shell(console.environment()) == expected


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", ".bash_completions/marchproxy.sh"),
        ("zsh", ".zfunc/_marchproxy"),
        ("fish", ".config/fish/completions/marchproxy.fish"),
    ],
)
def test_install_writes_below_the_users_home(
    console: Console, monkeypatch: pytest.MonkeyPatch, shell: str, file: str
) -> None:
    monkeypatch.setenv("HOME", str(console.folder))
    result = console.ok("--install-completion", shell)
    script = console.ok("--show-completion", shell).out
    assert (console.folder / file).read_text().strip() == script.strip()
    assert (result.out, str(console.folder / file) in result.err) == ("", True)


def ask(console: Console, line: str, shell: str = "bash") -> list[str]:
    """What a shell gets for a command line whose last word is being typed."""
    words = line.split(" ")
    answered = subprocess.run(
        [sys.executable, "-m", "marchproxy"],
        cwd=ROOT,
        env=os.environ
        | console.variables
        | {
            "_MARCHPROXY_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            "_TYPER_COMPLETE_ARGS": line,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert answered.stderr == ""
    return answered.stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("marchproxy st", ["status"]),
        ("marchproxy service ", ["add", "list", "show", "set", "remove"]),
        ("marchproxy service list --out", ["--output"]),
        ("marchproxy service list --output ", ["table", "json", "yaml"]),
        ("marchproxy service show ", ["clients", "web"]),
        ("marchproxy service show w", ["web"]),
        ("marchproxy mapping show ", ["cw"]),
        ("marchproxy token issue w", ["web"]),
        ("marchproxy token list ", ["clients", "web"]),
        ("marchproxy mapping add m --from c", ["clients"]),
        ("marchproxy service list --cluster d", ["default"]),
        ("marchproxy explain --to w", ["web"]),
    ],
)
def test_bash_gets_commands_flags_and_names(site: Console, line: str, expected: list[str]) -> None:
    assert ask(site, line) == expected


def test_bash_itself_completes_with_the_script(site: Console) -> None:
    """As in a session: the script is evaluated, its function called, and its answer read back."""
    script = site.ok("--show-completion", "bash").out
    program = site.folder / "marchproxy"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m marchproxy "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        [
            "bash",
            "--norc",
            "-c",
            f"{script}\nCOMP_WORDS=(marchproxy service show w) COMP_CWORD=3\n"
            f'_marchproxy_completion {program}\necho "${{COMPREPLY[@]}}"',
        ],
        cwd=ROOT,
        env=os.environ | site.variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "web\n"


def test_zsh_and_fish_get_help_beside_the_names(site: Console) -> None:
    assert ask(site, "marchproxy stat", "fish") == [f"status\t{COMMANDS['status']}"]
    assert "status" in ask(site, "marchproxy stat", "zsh")[0]


def test_an_unknown_question_is_no_traceback(console: Console) -> None:
    console.variables["_MARCHPROXY_COMPLETE"] = "complete_tcsh"
    assert console().code == 1
