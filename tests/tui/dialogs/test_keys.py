"""The keys that work where one is."""

from textual.binding import ActiveBinding, Binding
from textual.pilot import Pilot

from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.dialogs.keys import Keys
from tests.tui.stage import Stage, perform, picture, until


def test_ours_come_first_and_each_once() -> None:
    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        bindings = [
            Binding("down", "cursor_down", "Cursor down"),
            Binding("x", "cut", "Cut", tooltip="End the flow"),
            Binding("delete", "cut", "Cut", tooltip="End the flow"),
            Binding("z", "hidden", ""),
            Binding("f9", "quit", "Quit", tooltip="Quit the app", show=False),
            Binding("q", "quit", "Quit", tooltip="Leave"),
        ]
        app.push_screen(Keys([ActiveBinding(app, each, True, each.tooltip) for each in bindings]))
        await until(pilot, lambda: isinstance(app.screen, Keys))
        shown = picture(app)
        assert shown.index("End the flow") < shown.index("Cursor down")
        assert shown.count("End the flow") == 1
        assert "Leave" in shown
        assert "f9" not in shown

    perform(Stage(), play)
