"""What every dialog has: a frame with a title, and a way out."""

from textual.pilot import Pilot

from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.dialogs.dialog import Dialog
from tests.tui.stage import Stage, perform, picture, until


def test_escape_leaves_without_an_answer_and_titles_are_text() -> None:
    answers: list[object] = []

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.push_screen(Dialog[str]("[2001:db8::1] → x"), answers.append)
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        assert "[2001:db8::1] → x" in picture(app)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Dialog))
        assert answers == [None]

    perform(Stage(), play)
