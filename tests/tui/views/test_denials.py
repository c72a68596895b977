"""What is refused."""

from functools import partial
from typing import Any

from textual.pilot import Pilot

from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.dialogs.changes import Changes
from marchproxy.tui.views.denials import BY, Denials
from tests.tui.stage import Play, Stage, decision, perform, picture, until


def on_denials(stage: Stage, then: Any) -> None:
    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.action_tab("denials")
        await until(pilot, lambda: isinstance(app.view, Denials) and app.view.table.records)
        assert isinstance(app.view, Denials)
        await then(app, app.view, pilot)

    action: Play = play
    perform(stage, action)


def test_totals_are_those_of_the_status() -> None:
    async def play(app: MarchProxyApp, view: Denials, pilot: Pilot[None]) -> None:
        shown = picture(app)
        assert "✗ deny" in shown
        assert "! audit" in shown
        assert "later" in shown

    on_denials(Stage(), play)


def test_who_is_refused_most_comes_from_the_daemon() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, view: Denials, pilot: Pilot[None]) -> None:
        assert stage.count("top") == 0
        for by in BY[1:]:
            asked, said = {"by": by, "sort": "packets", "denied": True}, f"totals by {by}"
            await pilot.press("b")
            await until(pilot, partial(lambda asked: stage.last("top") == asked, asked))
            await until(pilot, partial(lambda said: said in picture(app), said))
            await until(pilot, lambda: "(strangers)" in picture(app))
            assert "✗ deny" not in picture(app)
        await pilot.press("b")
        await until(pilot, lambda: "✗ deny" in picture(app))

    on_denials(stage, play)


def test_what_was_refused_can_be_allowed() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, view: Denials, pilot: Pilot[None]) -> None:
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, Changes))
        assert "+ mapping clients-to-web-tcp" in picture(app)
        await pilot.press("a")
        await until(pilot, lambda: stage.count("write") == 1)
        assert stage.last("write") == ("allow 10.1.0.2 to 10.2.0.10:443 by tcp", False)
        assert [str(ports) for ports in stage.mapping("clients-to-web-tcp").ports] == ["443"]

    on_denials(stage, play)


def test_what_is_denied_on_purpose_is_not_allowed_behind_its_back() -> None:
    stage = Stage()
    stage.refused = [decision(1, mapping="no-ssh", reason="DENY_MAPPING")]

    async def play(app: MarchProxyApp, view: Denials, pilot: Pilot[None]) -> None:
        await pilot.press("a")
        await until(pilot, lambda: "no-ssh denies this on purpose" in picture(app))
        assert not isinstance(app.screen, Changes)

    on_denials(stage, play)


def test_the_daemon_searches_while_it_is_typed() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, view: Denials, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"deny_")
        await until(pilot, lambda: stage.last("flows").get("text") == "deny_")
        assert stage.last("flows")["denied"]

    on_denials(stage, play)
