"""Which running flows a change would cut: asked of the daemon, which alone knows them."""

from collections.abc import Sequence
from typing import Any

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import warn
from marchproxy.cli.flows import CARRIED
from marchproxy.cli.output import show_lines
from marchproxy.cli.table import Columns, draw
from marchproxy.client import preview
from marchproxy.client.control import Control
from marchproxy.model.change import Change
from marchproxy.model.errors import MarchproxyError

SHOWN = 20
"""Flows that a person is shown; JSON has a thousand."""

_COLUMNS: Columns = {
    **{title: CARRIED[title] for title in ("SOURCE", "DESTINATION", "PROTOCOL", "STATE", "AGE", "MAPPING")},
    "REASON": "cut_reason",
    "BY": lambda flow: flow["cut_by"] or "-",
}


def foresee(environment: Environment, sha256: str, changes: Sequence[Change]) -> Any:
    """The daemon's answer (`POST /v1/preview`), or None where it cannot be known, which is said."""
    try:
        return preview.foresee(Control(environment), sha256, changes)
    except MarchproxyError as error:
        warn(environment, f"which running flows this would cut cannot be known: {error.message}", error.hint)
        return None


def show_cuts(environment: Environment, preview: Any) -> None:
    """Say it to a person: how many of how many, and the first of them."""
    if preview is None or not preview["looked_at"]:
        return
    more = "" if preview["complete"] else " that were looked at, of more"
    lines = ["", f"cuts {preview['cut']} of {preview['looked_at']} running flows{more}"]
    lines += draw(preview["flows"][:SHOWN], _COLUMNS, environment.width) if preview["flows"] else []
    if preview["cut"] > SHOWN:
        lines.append(f"and {preview['cut'] - SHOWN} more")
    show_lines(environment, lines)
    if preview["unresolved"]:
        names = ", ".join(preview["unresolved"][:5])
        warn(environment, f"not resolved yet, so what they would allow counts as cut: {names}")
