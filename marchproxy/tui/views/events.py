"""What happens, as it happens."""

import threading
from collections import deque
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Label

from marchproxy.client.words import cell, printable
from marchproxy.model.errors import MarchproxyError
from marchproxy.tui.link import Link, Row
from marchproxy.tui.table import Column, LiveTable
from marchproxy.tui.views.view import FREEZE, WHY, Browser, occurs
from marchproxy.tui.words import clock, route

KEPT = 500
"""Events that can be scrolled back to."""
_QUIET = ("denied", "audited", "backend", "reload", "interface", "problem")
_FLOWS = (*_QUIET, "flow-start", "flow-end")
_PAUSE = 2.0
"""Seconds until a daemon that has ended is asked again."""


class Events(Browser):
    """The newest on top."""

    TITLE = "Events"
    BINDING_GROUP_TITLE = "Events"
    EVERY = 0.5
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
        self._listener: threading.Thread | None = None
        self._over = threading.Event()

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
            # A daemon thread: what it waits for may never come, and quitting shall not wait for it.
            self._listener = threading.Thread(
                target=self._listen, args=(self.link,), name="events", daemon=True
            )
            self._listener.start()
            self.say()
        if self.display and self._fresh and not self.frozen:
            self._show()

    def refresh_now(self) -> None:
        """Show what is kept."""
        self._show()

    def action_flows(self) -> None:
        """Starts and ends of flows may be thousands a second: they come only when asked for."""
        self.with_flows = not self.with_flows
        self.say()

    def on_unmount(self) -> None:
        """Nobody looks any more."""
        self._over.set()

    def _listen(self, link: Link) -> None:
        while not self._over.is_set():
            kinds = _FLOWS if self.with_flows else _QUIET
            try:
                for event in link.events(kinds):
                    self._count += 1
                    self._kept.appendleft({**_EMPTY, **event, "number": self._count})
                    self._fresh = True
                    if self.with_flows != (kinds is _FLOWS):
                        break
            except MarchproxyError:
                pass  # The banner says so.
            self._over.wait(_PAUSE if self.with_flows == (kinds is _FLOWS) else 0)

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
    if row["kind"] in _SENTENCES:
        return printable(_SENTENCES[row["kind"]].format_map(row))
    return route(row) if row["source"] else ""


_SENTENCES = {
    "backend": "{address}:{port} of {service} is {state} {why}",
    "reload": "revision {revision} {change} {message}",
    "interface": "{name} {change} {attached} {problem}",
    "problem": "{change}: {component}: {message}",
}


_COLUMNS = (
    Column("TIME", lambda row: clock(row["time"])),
    Column("KIND", lambda row: row["kind"]),
    Column("WHAT", _what),
    Column("REASON", lambda row: row["reason"]),
    Column("MAPPING", lambda row: cell(row["mapping"]), above=100),
    Column("COUNT", lambda row: str(row["count"]), above=120, right=True),
)
