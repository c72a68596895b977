"""Every text can be read: WCAG 2.2, success criterion 1.4.3."""

from itertools import product

import pytest
from textual.color import Color
from textual.theme import Theme

from marchproxy.tui.themes import DARK, LIGHT

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
