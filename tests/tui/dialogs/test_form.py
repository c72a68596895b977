"""A form, checked as it is typed."""

import os
from pathlib import Path

from textual.pilot import Pilot
from textual.widgets import Input

from marchproxy.model.change import Kind
from marchproxy.model.entities import Mapping
from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.dialogs.form import Form
from marchproxy.tui.forms import form_document
from tests.tui.stage import SNAPSHOT, Stage, perform, picture, until

CW = SNAPSHOT.clusters[0].mappings[0]
PICTURE = Path(__file__).parents[1] / "pictures" / "form-mapping-120x60.txt"


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


def frame(app: MarchProxyApp) -> str:
    """The form without the tab behind it, which learns things meanwhile."""
    region = app.screen.query_one(".dialog").region
    lines = picture(app).splitlines()[region.y : region.bottom]
    return "".join(f"{line[region.x : region.right].rstrip()}\n" for line in lines)


def test_the_form_of_a_mapping() -> None:
    """With MARCHPROXY_DRAW=1 it is drawn anew."""

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.push_screen(Form("New mapping", Kind.MAPPING, {}, fixed=False))
        await until(pilot, lambda: isinstance(app.screen, Form))
        await pilot.pause()
        if os.environ.get("MARCHPROXY_DRAW"):
            PICTURE.write_text(frame(app))
        await until(pilot, lambda: frame(app) == PICTURE.read_text())

    perform(Stage(), play, (120, 60))


def test_every_kind_fits_a_small_terminal() -> None:
    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        for kind in (Kind.SERVICE, Kind.MAPPING, Kind.BLOCK, Kind.LIMIT):
            app.push_screen(Form("New", kind, {}, fixed=False))
            await until(pilot, lambda: isinstance(app.screen, Form))
            assert "Name" in picture(app) or "Block" in picture(app)
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(app.screen, Form))

    perform(Stage(), play, (80, 24))
