"""The screen as a whole: tabs, banner, keys, pictures of every tab at three sizes."""

import gc
import os
from functools import partial
from pathlib import Path

import pytest
from textual.pilot import Pilot

from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.dialogs.keys import Keys
from marchproxy.tui.themes import DARK, LIGHT
from marchproxy.tui.views.catalogue import Catalogue
from marchproxy.tui.views.denials import Denials
from marchproxy.tui.views.flows import Flows
from marchproxy.tui.views.overview import Overview
from marchproxy.tui.views.top import Top
from tests.tui.stage import SIZES, Stage, decision, perform, picture, until

PICTURES = Path(__file__).parent / "pictures"
PATIENCE = 100
"""Tenths of a second."""
TABS = ("overview", "flows", "top", "denials", "policy", "protection", "events", "logs")


def shows(app: MarchProxyApp, tab: str) -> bool:
    return app.view.id == tab


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("tab", TABS)
def test_pictures(tab: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """With MARCHPROXY_DRAW=1 they are drawn anew; look at the difference before it is committed."""
    for view in (Overview, Flows, Top, Denials, Catalogue):
        # Only what a tab shows at first: rates come with the second answer.
        monkeypatch.setattr(view, "EVERY", 3600.0)
    monkeypatch.setattr("marchproxy.tui.app.EVERY", 3600.0)
    # Nor is the stage's daemon, which ends when it has told what happens, asked again.
    monkeypatch.setattr("marchproxy.tui.views.stream._PAUSE", 3600.0)
    stage = Stage()
    stage.happening = [{**decision(3), "kind": "denied"}]

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.action_tab(tab)
        table = getattr(app.view, "table", None)
        await until(pilot, lambda: table is None or table.records)
        await until(pilot, lambda: app.query_one("#panel-revisions").render() if tab == "overview" else True)
        await pilot.pause()
        kept = PICTURES / f"{tab}-{size[0]}x{size[1]}.txt"
        if os.environ.get("MARCHPROXY_DRAW"):
            kept.write_text(picture(app))
        for _ in range(PATIENCE):
            # A table finds its widths when it is idle, which on a busy machine comes late.
            if picture(app) == kept.read_text():
                break
            await pilot.pause(0.1)
        assert picture(app) == kept.read_text()

    perform(stage, play, size)


def test_numbers_lead_to_tabs_and_each_takes_the_keyboard() -> None:
    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        for number, tab in enumerate(TABS, start=1):
            await pilot.press(str(number))
            await until(pilot, partial(shows, app, tab))
            assert app.focused is not None
            assert app.view in app.focused.ancestors

    perform(Stage(), play)


def test_a_daemon_that_is_gone_is_said_and_comes_back() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        assert "✓ serving" in picture(app)
        stage.gone()
        await until(pilot, lambda: app.lost)
        assert "what is shown is old; it goes on by itself: no daemon answers" in picture(app)
        stage.error = None
        await until(pilot, lambda: app.lost is None)
        assert "no daemon answers" not in picture(app)

    perform(stage, play)


def test_without_a_daemon_it_starts_as_well() -> None:
    stage = Stage()
    stage.gone()

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        assert "no daemon answers" in picture(app)
        await pilot.press("5")
        await until(pilot, lambda: "no-ssh" in picture(app))

    perform(stage, play)


def test_a_trial_is_counted_down_and_kept_by_one_key() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        await pilot.press("c")
        assert stage.count("confirm") == 0
        stage.document = {**stage.document, "trial": {"revision": 8, "previous": 7, "remaining_s": 41.7}}
        await until(pilot, lambda: "revision 8 goes back to 7 in 42 s: c keeps it" in picture(app))
        await pilot.press("c")
        await until(pilot, lambda: stage.count("confirm") == 1)

    perform(stage, play)


def test_keys_are_those_that_work_here() -> None:
    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        await pilot.press("2")
        await until(pilot, lambda: app.view.id == "flows")
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, Keys))
        shown = picture(app)
        assert "Cut" in shown
        assert "End the flow under the cursor" in shown
        assert "Allow this" not in shown
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Keys))

    perform(Stage(), play)


def test_light_and_dark() -> None:
    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        assert app.theme == LIGHT.name
        await pilot.press("t")
        assert app.theme == DARK.name

    perform(Stage(), play, light=True)


def test_every_key_has_an_explanation() -> None:
    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        for tab in TABS:
            app.action_tab(tab)
            await until(pilot, partial(shows, app, tab))
            own = list(app.view._bindings.key_to_bindings.values())
            assert all(each.tooltip for group in own for each in group if each.show), tab

    perform(Stage(), play)


def test_problems_are_counted() -> None:
    stage = Stage()
    stage.document = {**stage.document, "healthy": False, "problems": ["tier: \x1b[31mno BPF"]}

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        shown = picture(app)
        assert "✗ 1 problem " in shown
        assert "✗ tier: \\x1b[31mno BPF" in shown

    perform(stage, play)


def test_an_hour_of_answers_takes_no_memory() -> None:
    """What is made for each of them is let go: the footer, for one, made anew every second, was not."""
    stage = Stage()

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        async def answers(count: int) -> int:
            for number in range(count):
                app.status = {**stage.document, "uptime_s": float(number)}
                await pilot.pause()
            gc.collect()
            return len(gc.get_objects())

        await answers(20)
        before = await answers(20)
        assert await answers(40) - before < 1000

    perform(stage, play)
