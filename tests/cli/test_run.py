"""`marchproxy run`: what the daemon is told. The daemon itself is tested in tests/dataplane."""

from pathlib import Path
from typing import Any

import pytest

from marchproxy.dataplane import start
from marchproxy.dataplane.options import RunOptions
from marchproxy.model.errors import Conflict
from tests.cli.console import Console


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[RunOptions]:
    """The options that a daemon was started with; none is."""
    options: list[RunOptions] = []

    def begin(given: RunOptions) -> int:
        options.append(given)
        return 0

    monkeypatch.setattr(start, "run", begin)
    return options


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"no_bpf": False, "verbosity": 0}),
        (["--no-bpf"], {"no_bpf": True, "verbosity": 0}),
        (["-vv"], {"no_bpf": False, "verbosity": 2}),
    ],
)
def test_flags_and_environment_arrive(
    console: Console, told: list[RunOptions], words: list[str], expected: dict[str, Any]
) -> None:
    console.variables["MARCHPROXY_DRAIN_SECONDS"] = "3"
    console.ok("run", *words)
    (options,) = told
    assert {name: getattr(options, name) for name in expected} == expected
    assert options.state_dir == Path(console.variables["MARCHPROXY_STATE_DIR"])
    assert options.runtime_dir == Path(console.variables["MARCHPROXY_RUNTIME_DIR"])
    assert options.drain == 3.0


def test_settings_that_cannot_be_meant_are_5(console: Console, told: list[RunOptions]) -> None:
    console.variables["MARCHPROXY_METRICS_LISTEN"] = "everywhere"
    result = console("run")
    assert result.code == 5
    assert "MARCHPROXY_METRICS_LISTEN" in result.err
    assert told == []


def test_a_daemon_that_cannot_start_says_why(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(options: RunOptions) -> int:
        raise Conflict("a daemon runs here already", hint="stop it first")

    monkeypatch.setattr(start, "run", refuse)
    result = console("run")
    assert (result.code, result.err) == (4, "error: a daemon runs here already\nhint: stop it first\n")
