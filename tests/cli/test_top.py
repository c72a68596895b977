"""`marchproxy top`."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rich.console import Console as Screen

from marchproxy.cli import top
from marchproxy.client.control import Control
from marchproxy.model.errors import DaemonNotRunning
from tests.cli.console import Answers, Console, Daemon

type Start = Callable[[Answers], Daemon]

ROW = {
    "name": "default/a-service-with-quite-a-long-name-that-has-no-end",
    "flows": 12,
    "packets": 48_120,
    "bytes": 61_200_340,
    "packets_per_s": 410.2,
    "bytes_per_s": 520_011.0,
}
FOUND = {"by": "service", "rows": [ROW], "total": 3, "seconds": 1.004}
REFUSED = {"by": "reason", "rows": [{**ROW, "name": "NO_MAPPING", "mapping": ""}], "total": 1, "seconds": 1.0}


def test_not_a_terminal_is_told_once(console: Console, daemon: Start) -> None:
    server = daemon({"GET /v1/top": (200, FOUND)})
    result = console.ok("top")
    title, row = result.out.splitlines()
    assert title.split() == ["NAME", "FLOWS", "PACKETS/S", "RATE", "PACKETS", "BYTES"]
    assert row.split()[1:] == ["12", "410", "520", "kB/s", "48120", "61.2", "MB"]
    assert "1 of 3" in result.err
    assert server.asked[0][0] == "GET /v1/top?by=service&sort=bytes_per_s&limit=20"


def test_reasons_have_a_mapping(console: Console, daemon: Start) -> None:
    server = daemon({"GET /v1/top": (200, REFUSED)})
    title, row = console.ok("top", "--by", "reason", "--limit", "5").out.splitlines()
    assert title.split()[:2] == ["REASON", "MAPPING"]
    assert row.split()[:2] == ["NO_MAPPING", "-"]
    assert server.asked[0][0] == "GET /v1/top?by=reason&sort=packets&limit=5"


def test_who_is_refused_most(console: Console, daemon: Start) -> None:
    row = ROW | {"name": "10.1.0.2", "flows": 0, "bytes": None, "bytes_per_s": None}
    found = {"by": "source", "denied": True, "rows": [row], "total": 1, "seconds": 1.0}
    server = daemon({"GET /v1/top": (200, found)})
    title, shown = console.ok("top", "--denied", "--by", "source", "--limit", "5").out.splitlines()
    assert title.split() == ["NAME", "PACKETS/S", "PACKETS"]
    assert shown.split() == ["10.1.0.2", "410", "48120"]
    assert server.asked[0][0] == "GET /v1/top?by=source&sort=packets&denied=1&limit=5"


def test_mappings_that_refuse_have_bytes(console: Console, daemon: Start) -> None:
    found = {**FOUND, "by": "mapping", "denied": True, "total": 1}
    daemon({"GET /v1/top": (200, found)})
    title, _ = console.ok("top", "--denied", "--by", "mapping").out.splitlines()
    assert title.split() == ["NAME", "PACKETS/S", "RATE", "PACKETS", "BYTES"]


def test_json_is_the_daemons(console: Console, daemon: Start) -> None:
    daemon({"GET /v1/top": (200, FOUND)})
    assert console.ok("top", "--output", "json").json == FOUND


def _answers(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> None:
    following: Iterator[Any] = iter(answers)

    def fetch(self: Control, target: str, **query: object) -> tuple[Any, dict[str, str]]:
        answer = next(following)
        if isinstance(answer, BaseException):
            raise answer
        return answer, {}

    monkeypatch.setattr(Control, "fetch", fetch)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def test_the_first_who_looks_waits_for_rates(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, FOUND | {"seconds": 0.0}, FOUND)
    assert console.ok("top", "--once", "--output", "json").json == FOUND


def test_json_with_an_interval_is_a_line_each_time(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, FOUND, REFUSED, KeyboardInterrupt())
    result = console.ok("top", "--output", "json", "--interval", "1")
    assert [json.loads(line) for line in result.out.splitlines()] == [FOUND, REFUSED]


def test_a_terminal_is_renewed_until_ctrl_c(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    console.variables["COLUMNS"] = "80"
    again = FOUND | {"rows": [ROW | {"name": "again"}]}
    _answers(monkeypatch, FOUND, DaemonNotRunning("none"), again, KeyboardInterrupt())
    result = console("top", tty=True)
    assert result.code == 0
    assert "61.2 MB" in result.out
    assert "again" in result.out
    assert "the daemon does not answer" in result.out


@pytest.mark.parametrize("found", [FOUND, REFUSED])
def test_what_is_shown_fits_80_columns(found: Any) -> None:
    screen = Screen(width=80, highlight=False)
    with screen.capture() as captured:
        screen.print(top._screen(found, "", 80))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.rstrip().endswith("  410  520 kB/s    48120  61.2 MB")], lines


def test_hostile_names_do_not_reach_the_terminal(console: Console, daemon: Start) -> None:
    daemon({"GET /v1/top": (200, FOUND | {"rows": [ROW | {"name": "\x1b[2Jx"}]})})
    assert "\x1b" not in console("top").out


@pytest.mark.parametrize(
    ("words", "code"), [([], 6), (["--by", "port"], 2), (["--interval", "0"], 2), (["--sort", "size"], 2)]
)
def test_codes(console: Console, words: list[str], code: int) -> None:
    assert console("top", *words).code == code
