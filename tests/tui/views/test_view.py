"""What every tab does: it asks while somebody looks, and bears what goes wrong."""

import pytest
from textual.pilot import Pilot

from marchproxy.model.errors import MarchproxyError
from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.views.flows import Flows
from marchproxy.tui.views.view import occurs
from tests.tui.stage import Stage, decision, perform, until


def test_a_hidden_tab_asks_nothing() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.action_tab("flows")
        await until(pilot, lambda: stage.count("flows") > 1)
        app.action_tab("policy")
        await until(pilot, lambda: app.view.id == "policy")
        await pilot.pause(0.1)
        asked = stage.count("flows")
        looks = stage.count("status")
        await until(pilot, lambda: stage.count("status") > looks + 1)
        assert stage.count("flows") == asked

    perform(stage, play)


def test_a_complaint_is_said_once() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.action_tab("flows")
        await until(pilot, lambda: stage.count("flows"))
        stage.error = MarchproxyError("the daemon did not answer", hint="its log says why")
        before = stage.count("flows")
        await until(pilot, lambda: stage.count("flows") > before + 1)
        said = [each for each in app._notifications if "did not answer" in each.message]
        assert len(said) == 1

    perform(stage, play)


def test_the_daemon_is_asked_for_what_was_typed_and_not_for_each_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # However long the machine takes from one key to the next.
    monkeypatch.setattr(Flows, "PAUSE", 2.0)
    stage = Stage()

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.action_tab("flows")
        await until(pilot, lambda: stage.count("flows"))
        await pilot.press("slash", *"10.1.0.2")
        await until(pilot, lambda: stage.last("flows")["text"] == "10.1.0.2")
        texts = {query["text"] for what, query in stage.asked if what == "flows"}
        assert texts == {"", "10.1.0.2"}

    perform(stage, play)


def test_escape_shows_everything_again_and_keys_are_keys() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.action_tab("flows")
        await until(pilot, lambda: stage.count("flows"))
        await pilot.press("slash", *"lan")
        await until(pilot, lambda: stage.last("flows")["text"] == "lan")
        await pilot.press("escape")
        await until(pilot, lambda: stage.last("flows")["text"] == "")
        view = app.view
        assert isinstance(view, Flows)
        assert not view.filter.display
        assert app.focused is view.table
        # From the rows as well, where a filter was left in force.
        await pilot.press("slash", *"web", "enter")
        await until(pilot, lambda: stage.last("flows")["text"] == "web")
        assert app.focused is view.table
        await pilot.press("escape")
        await until(pilot, lambda: stage.last("flows")["text"] == "")
        await pilot.press("5")
        await until(pilot, lambda: app.view.id == "policy")

    perform(stage, play)


def test_text_occurs_in_any_value() -> None:
    row = decision(1, mapping="No-SSH")
    assert occurs("", row)
    assert occurs("no-ssh", row)
    assert occurs("10.1.0", row)
    assert not occurs("elsewhere", row)
