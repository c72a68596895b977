"""What the daemon says about itself."""

from collections.abc import Awaitable, Callable

from textual.pilot import Pilot

from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.views.logs import Logs
from tests.tui.stage import Stage, perform, picture, record, until


def on_logs(stage: Stage, then: Callable[[MarchProxyApp, Logs, Pilot[None]], Awaitable[None]]) -> None:
    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        await pilot.press("8")
        await until(pilot, lambda: isinstance(app.view, Logs) and app.view.table.records)
        assert isinstance(app.view, Logs)
        await then(app, app.view, pilot)

    perform(stage, play)


def test_the_newest_stands_on_top_and_all_of_it_below() -> None:
    stage = Stage()
    failure = "Traceback (most recent call last):\n  a\n  b\nValueError: bro\x1bken"
    stage.logged = [record(1), record(2, "error", "it failed\nbadly", process="worker 1", exception=failure)]

    async def then(app: MarchProxyApp, view: Logs, pilot: Pilot[None]) -> None:
        assert [row["number"] for row in view.table.records] == [2, 1]
        await until(pilot, lambda: "ValueError: bro\\x1bken" in picture(app))
        shown = picture(app)
        assert "✗ error" in shown
        assert "worker 1" in shown
        assert "marchproxy.dataplane.supervisor: it failed\\nbadly" in shown

    on_logs(stage, then)


def test_levels_are_left_out_one_after_the_other() -> None:
    stage = Stage()

    async def then(app: MarchProxyApp, view: Logs, pilot: Pilot[None]) -> None:
        assert len(view.table.records) == 2
        await pilot.press("l", "l")
        await until(pilot, lambda: [row["level"] for row in view.table.records] == ["warning"])
        assert "warning and worse" in picture(app)
        await pilot.press("l")
        await until(pilot, lambda: not view.table.records)
        await pilot.press("l")
        await until(pilot, lambda: len(view.table.records) == 2)
        assert "all levels" in picture(app)

    on_logs(stage, then)


def test_what_is_told_twice_is_shown_once_and_what_is_lost_is_said() -> None:
    stage = Stage()
    stage.logged = [record(1), record(1)]

    async def then(app: MarchProxyApp, view: Logs, pilot: Pilot[None]) -> None:
        view._heard({"kind": "lost", "count": 17})
        await until(pilot, lambda: "17 records came too fast to be shown" in picture(app))
        assert len(view.table.records) == 2

    on_logs(stage, then)


def test_frozen_and_filtered() -> None:
    stage = Stage()

    async def then(app: MarchProxyApp, view: Logs, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"eth7", "enter")
        await until(pilot, lambda: [row["number"] for row in view.table.records] == [2])
        await pilot.press("space")
        assert "FROZEN" in picture(app)
        view._heard(record(3, message="eth7 again"))
        await pilot.pause(0.3)
        assert len(view.table.records) == 1
        await pilot.press("space")
        await until(pilot, lambda: len(view.table.records) == 2)

    on_logs(stage, then)
