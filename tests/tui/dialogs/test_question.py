"""Yes and no."""

import pytest
from textual.pilot import Pilot

from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.dialogs.question import Question
from tests.tui.stage import Stage, perform, picture, until


@pytest.mark.parametrize(
    ("keys", "answer"), [(["y"], True), (["n"], False), (["enter"], False), (["tab", "enter"], True)]
)
def test_answers(keys: list[str], answer: bool) -> None:
    answers: list[object] = []

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.push_screen(Question("Cut it?", "It [red]may[/red] come back."), answers.append)
        await until(pilot, lambda: isinstance(app.screen, Question))
        assert "It [red]may[/red] come back." in picture(app)
        await pilot.press(*keys)
        await until(pilot, lambda: answers)
        assert answers == [answer]

    perform(Stage(), play)


def test_by_mouse() -> None:
    answers: list[object] = []

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.push_screen(Question("Cut it?", ""), answers.append)
        await until(pilot, lambda: isinstance(app.screen, Question))
        await pilot.click("#yes")
        await until(pilot, lambda: answers)
        assert answers == [True]

    perform(Stage(), play)
