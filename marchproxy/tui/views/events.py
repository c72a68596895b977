"""What happens, as it happens."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Label

from marchproxy.client.words import cell, happening, printable, turn
from marchproxy.model.errors import MarchproxyError
from marchproxy.tui.link import Link
from marchproxy.tui.table import Column, LiveTable
from marchproxy.tui.views.view import FREEZE, WHY, Browser, occurs
from marchproxy.tui.words import Row, clock, route

KEPT = 500
"""Events that can be scrolled back to."""
_QUIET = ("denied", "audited", "backend", "reload", "interface", "problem")
_FLOWS = (*_QUIET, "flow-start", "flow-end")
_PAUSE = 2.0
"""Seconds until a daemon that has ended is asked again."""


class _Listener(threading.Thread):
    """Hands events on until it is over. What it waits for may never come, so nobody waits for its end."""

    def __init__(self, link: Link, kinds: Sequence[str], heard: Callable[[Row], None]) -> None:
        super().__init__(name="events", daemon=True)
        self.over = threading.Event()
        self._link = link
        self._kinds = kinds
        self._heard = heard

    def run(self) -> None:
        """Listen, and again where the daemon has ended."""
        while not self.over.is_set():
            try:
                for event in self._link.events(self._kinds):
                    if self.over.is_set():
                        return
                    self._heard(event)
            except MarchproxyError:
                pass  # The banner says so.
            self.over.wait(_PAUSE)


class Events(Browser):
    """The newest on top."""

    TITLE = "Events"
    BINDING_GROUP_TITLE = "Events"
    BINDINGS: ClassVar[list[BindingType]] = [
        FREEZE,
        Binding("f", "flows", "Flows too", tooltip="Show starts and ends of flows as well, or no longer"),
        WHY,
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.with_flows = False
        self._kept: deque[Row] = deque(maxlen=KEPT)
        self._fresh = False
        self._count = 0
        self._listener: _Listener | None = None

    def compose(self) -> ComposeResult:
        """A line of state, the filter while it is used, the table."""
        yield Label("", id="events-state", classes="state", markup=False)
        yield self.make_filter()
        yield LiveTable(_COLUMNS, lambda row: str(row["number"]), id="events-table")

    @property
    def table(self) -> LiveTable:
        """The rows."""
        return self.query_one("#events-table", LiveTable)

    def tick(self) -> None:
        """Begin to listen once somebody looks; then show what came."""
        if self._listener is None and self.display:
            self._listen()
            self.say()
        if self.display and self._fresh and not self.frozen:
            self._show()

    def refresh_now(self) -> None:
        """Show what is kept."""
        self._show()

    def action_flows(self) -> None:
        """Starts and ends of flows may be thousands a second: they come only when asked for."""
        self.with_flows = not self.with_flows
        self._listen()
        self.say()

    def on_unmount(self) -> None:
        """Nobody looks any more."""
        if self._listener is not None:
            self._listener.over.set()

    def _listen(self) -> None:
        """From now on to the kinds that are wanted now; whoever listened to others is heard no more."""
        if self._listener is not None:
            self._listener.over.set()
        self._listener = _Listener(self.link, _FLOWS if self.with_flows else _QUIET, self._heard)
        self._listener.start()

    def _heard(self, event: Row) -> None:
        """In the listener's thread."""
        self._count += 1
        self._kept.appendleft({**_EMPTY, **event, "event": event, "number": self._count})
        self._fresh = True

    def _show(self) -> None:
        self._fresh = False
        self.table.show([row for row in tuple(self._kept) if occurs(self.text, row)])
        self.say()

    def say(self) -> None:
        """What is listened to."""
        what = "with starts and ends of flows" if self.with_flows else "without starts and ends of flows"
        self.query_one("#events-state", Label).update("  ".join([what, *self.said_of_all()]))


_EMPTY: Row = {
    "time": "",
    "kind": "",
    "reason": "",
    "mapping": "",
    "source": "",
    "destination": "",
    "count": 1,
}


def _what(row: Row) -> str:
    if row["kind"] == "lost":
        return f"{row['count']} events came too fast to be shown"
    return route(row) if row["source"] else printable(f"{turn(row['event'])}: {happening(row['event'])}")


_COLUMNS = (
    Column("TIME", lambda row: clock(row["time"])),
    Column("KIND", lambda row: row["kind"]),
    Column("WHAT", _what),
    Column("REASON", lambda row: row["reason"]),
    Column("MAPPING", lambda row: cell(row["mapping"]), above=100),
    Column("COUNT", lambda row: str(row["count"]), above=120, right=True),
)
