"""Live flows."""

import itertools
from typing import Any

from textual.pilot import Pilot

from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.dialogs.question import Question
from marchproxy.tui.dialogs.why import Why
from marchproxy.tui.views.flows import PAGE, Flows
from tests.tui.stage import Play, Stage, flow, perform, picture, until


def on_flows(stage: Stage, then: Any) -> None:
    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.action_tab("flows")
        await until(pilot, lambda: isinstance(app.view, Flows) and app.view.table.records)
        assert isinstance(app.view, Flows)
        await then(app, app.view, pilot)

    action: Play = play
    perform(stage, action)


def test_the_daemon_sorts_and_searches() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, view: Flows, pilot: Pilot[None]) -> None:
        assert stage.last("flows") == {"sort": "-bytes", "limit": PAGE, "offset": 0, "text": ""}
        await pilot.press("s")
        await until(pilot, lambda: stage.last("flows")["sort"] == "-packets")
        await pilot.press("r")
        await until(pilot, lambda: stage.last("flows")["sort"] == "packets")
        await pilot.press("slash", *"10.1")
        await until(pilot, lambda: stage.last("flows")["text"] == "10.1")
        await pilot.press("enter")
        assert app.focused is view.table
        assert "with “10.1”" in picture(app)

    on_flows(stage, play)


def test_a_click_on_a_title_sorts() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, view: Flows, pilot: Pilot[None]) -> None:
        await pilot.click(view.table, offset=(3, 0))
        await until(pilot, lambda: stage.last("flows")["sort"] == "source")

    on_flows(stage, play)


def test_frozen_rows_stay_while_the_headline_goes_on() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, view: Flows, pilot: Pilot[None]) -> None:
        await pilot.press("space")
        assert "FROZEN" in picture(app)
        stage.carried = [flow(9)]
        looks = stage.count("status")
        await until(pilot, lambda: stage.count("status") > looks + 1)
        assert [row["id"] for row in view.table.records] == [1, 2, 3]
        await pilot.press("space")
        await until(pilot, lambda: [row["id"] for row in view.table.records] == [9])

    on_flows(stage, play)


def test_following_stays_on_the_newest() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, view: Flows, pilot: Pilot[None]) -> None:
        await pilot.press("f")
        await until(pilot, lambda: stage.last("flows")["sort"] == "-started")
        stage.carried = [flow(4), *stage.carried]
        await until(pilot, lambda: (view.table.record or {}).get("id") == 4)
        await pilot.press("s")
        assert not view.following

    on_flows(stage, play)


def test_pages_turn_only_where_there_is_more() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, view: Flows, pilot: Pilot[None]) -> None:
        await pilot.press("right_square_bracket")
        assert view.page == 0
        stage.carried = [flow(number) for number in range(PAGE + 5)]
        await until(pilot, lambda: view.total == PAGE + 5)
        assert "of 205" in picture(app)
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: stage.last("flows")["offset"] == PAGE)
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: stage.last("flows")["offset"] == 0)

    on_flows(stage, play)


def test_a_flow_is_cut_after_a_yes_and_only_then() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, view: Flows, pilot: Pilot[None]) -> None:
        for answer in ("n", "escape", "enter"):
            await pilot.press("x")
            await until(pilot, lambda: isinstance(app.screen, Question))
            await pilot.press(answer)
            await until(pilot, lambda: not isinstance(app.screen, Question))
        assert stage.count("cut") == 0
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Question))
        await pilot.press("y")
        await until(pilot, lambda: stage.count("cut") == 1)
        assert stage.last("cut") == [1]

    on_flows(stage, play)


def test_who_only_looks_cannot_cut() -> None:
    stage = Stage(read_only=True)

    async def play(app: MarchProxyApp, view: Flows, pilot: Pilot[None]) -> None:
        assert "read-only" in picture(app)
        assert " x Cut" not in picture(app)
        await pilot.press("x")
        assert not isinstance(app.screen, Question)

    on_flows(stage, play)


def test_enter_says_why() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, view: Flows, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Why))
        assert stage.last("explain")["port"] == 80

    on_flows(stage, play)


def test_rates_come_with_the_second_answer() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, view: Flows, pilot: Pilot[None]) -> None:
        sent = itertools.count(1)

        def quick() -> bool:
            # It goes on: a rate stands there for no longer than until the next answer.
            stage.carried = [flow(1, bytes_sent=10**10 * next(sent))]
            return "Tbit/s" in picture(app) or "Gbit/s" in picture(app)

        await until(pilot, quick)

    on_flows(stage, play)
