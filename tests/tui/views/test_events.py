"""What happens, as it happens."""

from textual.pilot import Pilot

from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.table import LiveTable
from marchproxy.tui.views.events import Events
from tests.tui.stage import Stage, decision, perform, picture, until

DENIED = {**decision(3), "kind": "denied"}
BACKEND = {
    "kind": "backend",
    "time": "2030-01-01T00:00:09.000Z",
    "service": "web",
    "address": "10.2.0.10",
    "port": 8080,
    "state": "down",
    "why": "HTTP 503",
}


def test_the_newest_stands_on_top() -> None:
    stage = Stage()
    stage.happening = [DENIED, BACKEND, {"kind": "lost", "count": 17}]

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        assert stage.count("events") == 0
        app.action_tab("events")
        await until(pilot, lambda: isinstance(app.view, Events) and len(app.view.table.records) >= 3)
        shown = picture(app).splitlines()
        first = next(number for number, line in enumerate(shown) if "17 events came too fast" in line)
        assert "down: 10.2.0.10:8080 of web: HTTP 503" in shown[first + 1]
        assert "10.1.0.2:40003 → 10.2.0.10:443" in shown[first + 2]
        assert stage.last("events") == ("denied", "audited", "backend", "reload", "interface", "problem")

    perform(stage, play)


def test_flows_come_only_when_asked_for() -> None:
    stage = Stage()
    stage.happening = [DENIED]

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.action_tab("events")
        await until(pilot, lambda: stage.count("events"))
        await pilot.press("f")
        await until(pilot, lambda: "flow-start" in stage.last("events"))
        assert "with starts and ends" in picture(app)

    perform(stage, play)


def test_frozen_and_filtered() -> None:
    stage = Stage()
    stage.happening = [DENIED, BACKEND]

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.action_tab("events")
        await until(pilot, lambda: isinstance(app.view, Events) and app.view.table.records)
        assert isinstance(app.view, Events)
        await pilot.press("slash", *"503", "enter")
        await until(
            pilot,
            lambda: (
                {row["kind"] for row in app.view.query_one("#events-table", LiveTable).records} == {"backend"}
            ),
        )
        await pilot.press("space")
        assert "FROZEN" in picture(app)

    perform(stage, play)


def test_what_is_of_no_flow_is_a_sentence() -> None:
    stage = Stage()
    time = {"time": "2030-01-01T00:00:09.000Z"}
    stage.happening = [
        {**time, "kind": "reload", "change": "failed", "revision": 7, "message": "port 80 is taken"},
        {
            **time,
            "kind": "interface",
            "change": "lost",
            "name": "in0",
            "role": "inside",
            "attached": "",
            "problem": "gone",
        },
        {**time, "kind": "problem", "change": "began", "component": "names", "message": "no answer"},
    ]

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.action_tab("events")
        await until(pilot, lambda: isinstance(app.view, Events) and app.view.table.records)
        shown = picture(app)
        assert "failed: revision 7 stays in force: port 80 is taken" in shown
        assert "lost: in0 (inside): gone" in shown
        assert "began: names: no answer" in shown

    perform(stage, play)
