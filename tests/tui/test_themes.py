"""Every text can be read: WCAG 2.2, success criterion 1.4.3."""

from collections.abc import Iterator
from itertools import product

import pytest
from textual.color import Color
from textual.pilot import Pilot
from textual.theme import Theme

from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.dialogs.dialog import Dialog
from marchproxy.tui.dialogs.form import Form
from marchproxy.tui.forms import FIELDS, form_document
from marchproxy.tui.themes import DARK, LIGHT
from tests.tui.stage import Stage, decision, perform, picture, until
from tests.tui.test_app import TABS

LEAST = 4.5
TEXTS = ("primary", "secondary", "warning", "error", "success", "foreground", "text-muted")
GROUNDS = ("background", "surface", "panel")


def color(theme: Theme, name: str) -> Color:
    text = theme.variables.get(name) or getattr(theme, name)
    return Color.parse(str(text))


def contrast(one: Color, other: Color) -> float:
    """Of two colours, 1 to 21, from their relative luminance."""

    def luminance(color: Color) -> float:
        parts = [
            value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
            for value in color.normalized
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast() -> None:
    assert contrast(Color.parse("#000000"), Color.parse("#ffffff")) == pytest.approx(21)
    assert contrast(Color.parse("#777777"), Color.parse("#ffffff")) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [DARK, LIGHT], ids=lambda theme: theme.name)
@pytest.mark.parametrize(("text", "ground"), list(product(TEXTS, GROUNDS)))
def test_text_on_every_ground(theme: Theme, text: str, ground: str) -> None:
    assert contrast(color(theme, text), color(theme, ground)) >= LEAST


@pytest.mark.parametrize("theme", [DARK, LIGHT], ids=lambda theme: theme.name)
@pytest.mark.parametrize(
    ("text", "ground"),
    [
        ("block-cursor-foreground", "block-cursor-background"),
        ("block-cursor-blurred-foreground", "block-cursor-blurred-background"),
        ("footer-key-foreground", "footer-background"),
        ("footer-description-foreground", "footer-background"),
        ("background", "warning"),
        ("background", "error"),
    ],
)
def test_marked_lines_footer_and_banner(theme: Theme, text: str, ground: str) -> None:
    assert contrast(color(theme, text), color(theme, ground)) >= LEAST


def filled(app: MarchProxyApp) -> bool:
    """Whether the tab shows what it has, if that is a table."""
    table = getattr(app.view, "table", None)
    return table is None or bool(table.records)


def unread(app: MarchProxyApp) -> Iterator[tuple[str, float]]:
    """Text on the screen, as it is drawn, that has too little contrast."""
    # What a dialog stands before is there to be forgotten.
    dialogs = app.screen.query(".dialog")
    left, top, width, height = dialogs.first().region if dialogs else app.screen.region
    for strip in app.screen._compositor.render_strips()[top : top + height]:
        for segment in strip.crop(left, left + width):
            style = segment.style
            if style is None or not any(letter.isalnum() for letter in segment.text):
                continue
            assert style.color
            assert style.bgcolor
            assert style.color.triplet
            assert style.bgcolor.triplet
            text, ground = Color(*style.color.triplet), Color(*style.bgcolor.triplet)
            found = contrast(ground, text)
            if style.dim or found < LEAST:
                yield segment.text.strip(), round(found, 2)


@pytest.mark.parametrize("light", [False, True], ids=["dark", "light"])
def test_what_is_drawn_can_be_read(light: bool) -> None:
    """Every tab with its filter, and every dialog, of which Textual chooses colours too."""
    stage = Stage()
    stage.happening = [{**decision(3), "kind": "denied"}]

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        for tab in TABS:
            app.action_tab(tab)
            await until(pilot, lambda: filled(app))
            assert not list(unread(app)), tab
            if app.view.query(".filter"):
                await pilot.press("slash")
                await until(pilot, lambda: "any other text" in picture(app))
                assert not list(unread(app)), f"the filter of {tab}"
                app.view.focus_content()
        app.action_tab("denials")
        await until(pilot, lambda: app.view.id == "denials")
        for key in ("w", "a", "question_mark"):
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, Dialog))
            assert not list(unread(app)), type(app.screen)
            await pilot.press("escape")
        for kind in FIELDS:
            app.push_screen(Form("New", kind, form_document(None), fixed=False))
            await until(pilot, lambda: isinstance(app.screen, Form))
            assert not list(unread(app)), kind
            await pilot.press("escape")

    perform(stage, play, (120, 60), light=light)
