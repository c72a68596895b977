"""What a change would do, before it is written."""

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Button, Static

from marchproxy.client.changes import action, headline, steps
from marchproxy.client.words import printable
from marchproxy.model.change import Change
from marchproxy.tui.dialogs.dialog import Dialog
from marchproxy.tui.link import TRIAL, Intended
from marchproxy.tui.words import route

_SIGNS = {"add": "+", "change": "~", "remove": "-"}
_SHOWN = 8
"""Flows and warnings that are listed."""


class Changes(Dialog[str]):
    """Returns `apply`, or `trial`: it goes back unless it is confirmed."""

    AUTO_FOCUS = ".dialog"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "answer('apply')", "Apply"),
        Binding("t", "answer('trial')", f"Try for {TRIAL} s", tooltip="Goes back by itself unless confirmed"),
    ]

    def __init__(self, intended: Intended) -> None:
        super().__init__(intended.message)
        self._intended = intended

    def content(self) -> ComposeResult:
        """The difference, what to mind, which flows end, and the buttons."""
        if not self._intended.changes:
            yield Static("This changes nothing.")
            return
        yield Static(Text("\n").join(_lines(change) for change in self._intended.changes), id="difference")
        if self._intended.warnings:
            yield Static(self._warnings(), classes="warning")
        yield Static(_cuts(self._intended), classes="record")
        with Horizontal(classes="buttons"):
            yield Button("Apply", id="apply", variant="primary")
            yield Button(f"Try for {TRIAL} s", id="trial")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Nothing is applied where nothing changes."""
        return action != "answer" or bool(self._intended.changes)

    def action_answer(self, how: str) -> None:
        """Close with an answer."""
        self.dismiss(how)

    @on(Button.Pressed)
    def pressed(self, event: Button.Pressed) -> None:
        """The same with the mouse, or Enter."""
        self.dismiss(event.button.id)

    def _warnings(self) -> Text:
        found = self._intended.warnings
        lines = [f"! {finding.subject}: {printable(finding.message)}" for finding in found[:_SHOWN]]
        if len(found) > _SHOWN:
            lines.append(f"! and {len(found) - _SHOWN} more")
        return Text("\n".join(lines))


def _lines(change: Change) -> Text:
    what = f"{_SIGNS[action(change)]} {headline(change)}"
    return Text("\n".join([what, *(f"    {step}" for step in steps(change))]))


def _cuts(intended: Intended) -> Text:
    preview = intended.cut
    if preview is None:
        return Text(f"Which running flows this would end is not known: {printable(intended.untold)}")
    lines = [f"Ends {preview['cut']} of {preview['looked_at']} running flows."]
    lines += [f"  {route(flow)}  {flow['cut_reason']}" for flow in preview["flows"][:_SHOWN]]
    if preview["unresolved"]:
        lines.append(f"Not resolved yet, so counted as ended: {', '.join(preview['unresolved'][:_SHOWN])}")
    return Text("\n".join(lines))
