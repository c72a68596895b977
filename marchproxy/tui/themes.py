"""Colours: slate with amber and sky, dark and light. Every text has a contrast of 4.5:1 (WCAG 2.2, 1.4.3).

No meaning is told by colour alone: what is wrong or refused also says so, or has a sign.
"""

from typing import Final

from textual.theme import Theme

DARK: Final = Theme(
    name="marchproxy-dark",
    primary="#f5b83d",
    secondary="#7cc7f2",
    accent="#f5b83d",
    warning="#fbbf24",
    error="#ff8f8f",
    success="#6ee7a8",
    foreground="#e2e8f0",
    background="#0f172a",
    surface="#162033",
    panel="#1e293b",
    dark=True,
    variables={
        "block-cursor-foreground": "#0f172a",
        "block-cursor-background": "#f5b83d",
        "block-cursor-text-style": "bold",
        "block-cursor-blurred-foreground": "#e2e8f0",
        "block-cursor-blurred-background": "#334155",
        "footer-key-foreground": "#f5b83d",
        "footer-description-foreground": "#cbd5e1",
        "footer-background": "#1e293b",
        "input-selection-background": "#7cc7f2 35%",
        "text-muted": "#a9b7ca",
        "border": "#475569",
    },
)
LIGHT: Final = Theme(
    name="marchproxy-light",
    primary="#8a4b00",
    secondary="#075985",
    accent="#8a4b00",
    warning="#854d0e",
    error="#b91c1c",
    success="#166534",
    foreground="#0f172a",
    background="#f8fafc",
    surface="#eef2f7",
    panel="#e2e8f0",
    dark=False,
    variables={
        "block-cursor-foreground": "#ffffff",
        "block-cursor-background": "#8a4b00",
        "block-cursor-text-style": "bold",
        "block-cursor-blurred-foreground": "#0f172a",
        "block-cursor-blurred-background": "#cbd5e1",
        "footer-key-foreground": "#8a4b00",
        "footer-description-foreground": "#334155",
        "footer-background": "#e2e8f0",
        "input-selection-background": "#075985 25%",
        "text-muted": "#475569",
        "border": "#94a3b8",
    },
)
