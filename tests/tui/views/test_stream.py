"""What comes by itself: it is listened to once somebody looks, and again when the daemon is back."""

import pytest
from textual.pilot import Pilot

from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.views import stream
from marchproxy.tui.views.stream import Stream
from tests.tui.stage import Stage, perform, record, until


def test_a_daemon_that_is_back_is_listened_to_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_PAUSE", 0.05)
    stage = Stage()
    stage.logged = [record(1)]

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.action_tab("logs")
        await until(pilot, lambda: isinstance(app.view, Stream) and app.view.table.records)
        view = app.view
        assert isinstance(view, Stream)
        stage.gone()
        asked = stage.count("logs")
        await until(pilot, lambda: stage.count("logs") > asked + 1)
        stage.error = None
        stage.logged = [record(1, time="2030-01-01T00:02:00.000Z", message="the next daemon")]
        await until(pilot, lambda: len(view.table.records) == 2)
        assert [row["message"] for row in view.table.records] == ["the next daemon", "marchproxy is ready"]

    perform(stage, play)


def test_tabs_that_are_not_hidden_yet_do_not_ask() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        view = app.query_one("#logs", Stream)
        view.display = True
        view.tick()
        assert not view.shown
        await pilot.pause(0.1)
        assert stage.count("logs") == 0

    perform(stage, play)


def test_nobody_listens_where_nobody_looks() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        await pilot.pause(0.3)
        assert stage.count("logs") == stage.count("events") == 0

    perform(stage, play)
