"""The root: which commands there are, what loads for them, and how a process of ours begins and ends."""

import json
import os
from typing import Any

import pytest
from typer.main import get_command

from marchproxy.cli.main import COMMANDS, app
from marchproxy.version import VERSION
from tests.cli.commands import commands, paths
from tests.cli.console import STATUS, Console, Daemon
from tests.cli.processes import marchproxy, python


def test_exactly_the_commands_of_this_version() -> None:
    assert sorted(words for words, _ in commands()) == sorted(" ".join(path) for path in paths())


def test_the_table_says_what_the_modules_say() -> None:
    root: Any = get_command(app)
    assert {name: (command.help or "").split("\n")[0] for name, command in root.commands.items()} == COMMANDS


def test_help_lists_every_command_in_order(console: Console) -> None:
    listed = console.ok("--help").out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed if not line.startswith("    ")] == list(COMMANDS)


def test_version(console: Console) -> None:
    assert console.ok("--version").out == f"marchproxy {VERSION}\n"


def test_a_misspelt_command_gets_a_suggestion(console: Console) -> None:
    assert "Did you mean 'status'?" in console("statsu").err


HEAVY = {
    "cryptography": "takes 50 ms; only secrets and keys need it",
    "pydal": "takes 80 ms; reading needs none of it",
    "rich": "takes 40 ms; tables and help are drawn without it",
    "textual": "is the other front end",
    "asyncio": "belongs to the daemon",
    "pyroute2": "belongs to the daemon",
    "uvloop": "belongs to the daemon",
    "yaml": "is for files and --output yaml",
    "sqlite3": "is for commands that use the store",
    "http": "takes 30 ms; the control client speaks what it needs of HTTP",
    "importlib.metadata": "takes 30 ms; the version is in a file",
    "pydantic": "comes with typer 0.29",
    "marchproxy.store": "is for commands that use the store",
    "marchproxy.policy": "is for commands that compile",
    "marchproxy.dataplane": "belongs to the daemon",
    "marchproxy.model.snapshot": "is for commands that use the store",
}
"""What a command may load only when it has a reason; and what a reviewer would say otherwise."""

STORE = {"sqlite3", "marchproxy.store", "marchproxy.model.snapshot"}


@pytest.mark.parametrize(
    ("words", "reasons"),
    [
        pytest.param("--version", set(), id="--version"),
        pytest.param("--help", set(), id="--help"),
        pytest.param("version", set(), id="version"),
        pytest.param("status", set(), id="status"),
        pytest.param("flows", set(), id="flows"),
        pytest.param("service list", STORE, id="service list"),
        pytest.param("mapping list --output json", STORE, id="mapping list"),
        pytest.param("token list", STORE, id="token list"),
        pytest.param("export", STORE, id="export"),
        pytest.param("service list --output yaml", STORE | {"yaml"}, id="yaml"),
        pytest.param("check", STORE | {"marchproxy.policy"}, id="check"),
    ],
)
def test_what_a_command_loads(site: Console, words: str, reasons: set[str]) -> None:
    """In a clean interpreter, because this one has loaded everything."""
    answers = {"GET /v1/status": (200, STATUS), "GET /v1/flows": (200, [])}
    with Daemon(site.control_socket, answers):
        result = python(
            site,
            "import json, sys; from marchproxy.__main__ import main",
            f"sys.argv = ['marchproxy', *{words.split()!r}]",
            "code = main(); sys.stderr.write(json.dumps([code, sorted(sys.modules)]))",
        )
    code, loaded = json.loads(result.stderr)
    assert code == 0
    found = {name: why for name, why in HEAVY.items() if name in loaded and name not in reasons}
    assert found == {}


def test_version_alone_loads_not_even_typer(site: Console) -> None:
    result = python(
        site,
        "import sys; from marchproxy.__main__ import main",
        "sys.argv = ['marchproxy', '--version']; main()",
        "sys.stderr.write(' '.join(m for m in sys.modules if m.startswith(('typer', 'marchproxy'))))",
    )
    assert result.stdout == f"marchproxy {VERSION}\n"
    assert set(result.stderr.split()) == {"marchproxy", "marchproxy.__main__", "marchproxy.version"}


def test_a_process_with_its_streams_and_code(site: Console) -> None:
    result = marchproxy(site, "service", "show", "nothing", "--output", "json")
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.startswith("error: service 'nothing' does not exist\n")
    assert json.loads(marchproxy(site, "service", "list", "--output", "json").stdout)[1]["name"] == "web"


def test_a_reader_that_goes_away_is_141_and_silent(site: Console) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as nobody:
        result = marchproxy(site, "export", stdout=nobody)
    assert (result.returncode, result.stderr) == (141, "")


def test_arguments_that_are_no_text(site: Console) -> None:
    result = marchproxy(site, "service", "show", os.fsdecode(b"\xff\xfe"))
    assert result.returncode == 3
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize("words", ["export", "service list --output json", "service list"])
def test_data_is_utf8_whatever_the_locale_says(site: Console, words: str) -> None:
    site.ok("service", "set", "web", "--description", "Grüße 漢字")
    other = Console(site.folder, {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"})
    result = marchproxy(other, *words.split())
    assert (result.returncode, result.stdout) == (0, site.ok(*words.split()).out)


def test_what_nobody_foresaw_is_one_line(site: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*args: object, **settings: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("marchproxy.cli.intent.read", explode)
    result = site("service", "list")
    assert result.code == 1
    assert result.err.startswith("error: this should not have happened, sorry: ZeroDivisionError")
    assert "Traceback" not in result.err
    assert "Traceback" in site("service", "list", "-vv").err


def test_ctrl_c_is_130_and_silent(site: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("marchproxy.cli.intent.read", interrupt)
    result = site("service", "list")
    assert (result.code, result.out, result.err) == (130, "", "")
