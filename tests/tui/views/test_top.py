"""Who carries most."""

from textual.pilot import Pilot

from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.views.top import Top
from tests.tui.stage import Stage, perform, picture, until


def test_by_what_and_in_which_order() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.action_tab("top")
        await until(pilot, lambda: isinstance(app.view, Top) and app.view.table.records)
        view = app.view
        assert isinstance(view, Top)
        assert stage.last("top") == {"by": "service", "sort": "bytes_per_s"}
        assert "(strangers)" in picture(app)
        assert "8.0 kbit/s" in picture(app)
        await pilot.press("b")
        await until(pilot, lambda: stage.last("top")["by"] == "source")
        await pilot.press("left", "left")
        await until(pilot, lambda: stage.last("top")["by"] == "reason")
        await pilot.press("s")
        await until(pilot, lambda: stage.last("top")["sort"] == "packets_per_s")
        await pilot.press("slash", *"web", "enter")
        await until(pilot, lambda: [row["name"] for row in view.table.records] == ["web"])

    perform(stage, play)


def test_groups_change_where_rows_are_wider_than_the_screen() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.action_tab("top")
        await until(pilot, lambda: isinstance(app.view, Top) and app.view.table.records)
        view = app.view
        assert isinstance(view, Top)
        assert view.table.max_scroll_x > 0
        await pilot.press("right")
        await until(pilot, lambda: stage.last("top")["by"] == "source")

    perform(stage, play, (40, 20))


def test_a_click_on_a_title_sorts() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.action_tab("top")
        await until(pilot, lambda: isinstance(app.view, Top) and app.view.table.records)
        await pilot.click("#top-table", offset=(16, 0))
        await until(pilot, lambda: stage.last("top")["sort"] == "bytes_per_s")

    perform(stage, play)
