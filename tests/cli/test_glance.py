"""`status` by the short way is the same as by the long one, only sooner."""

import json

import pytest

from tests.cli.console import STATUS, Console, Daemon
from tests.cli.processes import marchproxy, python

SICK = STATUS | {"healthy": False, "problems": ["tier: in0 has vanished"]}


def both(console: Console, *words: str) -> list[tuple[int, str, str]]:
    """What a process says that reads no command line, and what one says that does."""
    done = [marchproxy(console, "status", *words, *more) for more in ((), ("--verbose",))]
    return [(each.returncode, each.stdout, each.stderr) for each in done]


@pytest.mark.parametrize("words", [(), ("--output", "json")])
@pytest.mark.parametrize("document", [STATUS, SICK])
def test_both_ways_say_the_same(
    console: Console, words: tuple[str, ...], document: dict[str, object]
) -> None:
    with Daemon(console.control_socket, {"GET /v1/status": (200, document)}):
        short, long = both(console, *words)
    assert short == long
    assert short[0] == (0 if document["healthy"] else 1)


def test_both_ways_fail_alike_without_a_daemon(console: Console) -> None:
    short, long = both(console)
    assert short == long
    assert short[0] == 6
    assert short[2].startswith("error: ")


def test_what_a_daemon_refuses_is_told_alike(console: Console) -> None:
    refusal = {"error": {"name": "NotPermitted", "message": "not you", "hint": ""}}
    with Daemon(console.control_socket, {"GET /v1/status": (403, refusal)}):
        short, long = both(console)
    assert short == long
    assert short[0] == 7


def test_the_short_way_reads_no_command_line(console: Console) -> None:
    with Daemon(console.control_socket, {"GET /v1/status": (200, STATUS)}):
        done = python(
            console,
            "import sys, json; from marchproxy.__main__ import main",
            "sys.argv = ['marchproxy', 'status']; main()",
            "sys.stderr.write(json.dumps(sorted(sys.modules)))",
        )
    assert not {"typer", "shlex", "marchproxy.cli.main"} & set(json.loads(done.stderr))
