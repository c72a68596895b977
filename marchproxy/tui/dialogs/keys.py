"""The keys that work where one is, made from the bindings themselves."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import ActiveBinding
from textual.widgets import Static

from marchproxy.tui.dialogs.dialog import Dialog


class Keys(Dialog[None]):
    """One line for each key: what it does, and what that means."""

    def __init__(self, bindings: Sequence[ActiveBinding]) -> None:
        super().__init__("Keys")
        self._active = bindings

    def content(self) -> ComposeResult:
        """The table."""
        table = Table.grid(padding=(0, 2))
        for key, name, meaning in self._lines():
            table.add_row(Text(key, style="bold"), Text(name), Text(meaning))
        yield Static(table)
        yield Static(Text("Everything else: ctrl+p, then type what you want."), classes="record")

    def _lines(self) -> Iterator[tuple[str, str, str]]:
        """Ours first: they say what they mean. Of keys for the same, the one that the footer shows."""
        seen = set()
        for active in sorted(self._active, key=_order):
            binding = active.binding
            if binding.system or not binding.description or binding.action in seen:
                continue
            seen.add(binding.action)
            yield self.app.get_key_display(binding), binding.description, binding.tooltip


def _order(active: ActiveBinding) -> tuple[bool, bool]:
    return not active.binding.tooltip, not active.binding.show
