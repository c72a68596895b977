"""Which mapping decides about a connection, and how: the daemon's chain of reasons."""

from collections.abc import Mapping
from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Static

from marchproxy.client.words import cell, printable
from marchproxy.tui.dialogs.dialog import Dialog
from marchproxy.tui.words import Row, route, verdict


class Why(Dialog[None]):
    """The answer of `explain` about a flow or a refusal, and the record itself."""

    def __init__(self, row: Row, answer: Row) -> None:
        super().__init__(route(row))
        self._row = row
        self._answer = answer

    def content(self) -> ComposeResult:
        """The verdict, a sentence for each step, then every field of the record."""
        yield Static(_decision(self._answer), classes="verdict")
        yield Static(Text("\n".join(f"• {printable(step)}" for step in self._answer["why"])))
        if said := _kernel(self._answer):
            yield Static(Text(said))
        yield Static(Text(_record(self._row)), classes="record")


def question_of(row: Row) -> Mapping[str, object]:
    """What to ask the daemon about a flow or a refusal."""
    asked: dict[str, Any] = {key: row[key] for key in ("source", "destination", "protocol")}
    if row["protocol"] != "icmp":
        asked["port"] = row["destination_port"]
    return asked


def _decision(answer: Row) -> Text:
    by = f" by mapping {cell(answer['mapping'])}" if answer["mapping"] else ""
    now = f"{answer['reason']}{by}, revision {answer['revision']}, tier {answer['tier']}"
    return Text.assemble("a new one now: ", verdict(answer["verdict"]), f", {now}")


def _kernel(answer: Row) -> str:
    """What the programs in the kernel say; empty where they were not asked."""
    kernel, agrees = answer.get("kernel"), answer.get("agrees")
    if agrees:
        return "✓ the programs in the kernel say the same"
    if agrees is False and isinstance(kernel, dict):
        by = f" by mapping {cell(kernel['mapping'])}" if kernel["mapping"] else ""
        return f"✗ the programs in the kernel say otherwise: {kernel['verdict']}, {kernel['reason']}{by}"
    note = answer.get("kernel_note")
    return f"the kernel was not asked: {printable(note)}" if note else ""


def _record(row: Row) -> str:
    width = max(map(len, row))
    return "\n".join(
        f"{key:<{width}}  {cell(value)}" for key, value in row.items() if value not in ("", None)
    )
