"""`marchproxy tui`."""

import gc

import pytest

from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.themes import LIGHT
from tests.cli.console import Console


def test_without_a_terminal_it_says_what_scripts_do(console: Console) -> None:
    result = console("tui")
    assert result.code == 2
    assert "this needs a terminal" in result.err
    assert "marchproxy status" in result.err


def test_it_runs_the_application(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[MarchProxyApp] = []

    def run(self: MarchProxyApp) -> None:
        started.append(self)

    monkeypatch.setattr(MarchProxyApp, "run", run)
    gc.disable()
    assert console("tui", "--read-only", "--light", tty=True).code == 0
    (app,) = started
    assert app.link.read_only
    assert app.theme == LIGHT.name
    assert gc.isenabled()
    assert app.link.appliance.control_socket == console.control_socket
