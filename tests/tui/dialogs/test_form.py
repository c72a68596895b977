"""A form, checked as it is typed."""

from textual.pilot import Pilot
from textual.widgets import Input

from marchproxy.model.change import Kind
from marchproxy.model.entities import Mapping
from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.dialogs.form import Form
from marchproxy.tui.forms import form_document
from tests.tui.stage import SNAPSHOT, Stage, perform, picture, until

CW = SNAPSHOT.clusters[0].mappings[0]


def test_what_is_wrong_is_said_while_it_is_typed() -> None:
    answers: list[object] = []

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.push_screen(Form("Mapping cw", Kind.MAPPING, form_document(CW), fixed=True), answers.append)
        await until(pilot, lambda: isinstance(app.screen, Form))
        assert app.screen.query_one("#field-name", Input).disabled
        ports = app.screen.query_one("#field-ports", Input)
        ports.focus()
        await pilot.press(*"99999")
        await until(pilot, lambda: "expected a port number from" in picture(app))
        await pilot.press("enter")
        await until(pilot, lambda: "✗ mapping" in picture(app))
        assert answers == []
        await pilot.press(*["backspace"] * 5, *"443")
        await until(pilot, lambda: "expected a port" not in picture(app))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: answers)
        (made,) = answers
        assert isinstance(made, Mapping)
        assert (made.name, [str(each) for each in made.ports]) == ("cw", ["443"])

    perform(Stage(), play)


def test_every_kind_fits_a_small_terminal() -> None:
    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        for kind in (Kind.SERVICE, Kind.MAPPING, Kind.BLOCK, Kind.LIMIT):
            app.push_screen(Form("New", kind, {}, fixed=False))
            await until(pilot, lambda: isinstance(app.screen, Form))
            assert "Name" in picture(app) or "Block" in picture(app)
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(app.screen, Form))

    perform(Stage(), play, (80, 24))
