"""What happens, as it happens."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar

from textual.binding import Binding, BindingType

from marchproxy.client.words import cell, happening, printable, turn
from marchproxy.tui.table import Column
from marchproxy.tui.views.stream import Stream
from marchproxy.tui.views.view import FREEZE, WHY
from marchproxy.tui.words import Row, clock, route

_QUIET = ("denied", "audited", "backend", "reload", "interface", "problem")
_FLOWS = (*_QUIET, "flow-start", "flow-end")


def _what(row: Row) -> str:
    if row["kind"] == "lost":
        return f"{row['count']} events came too fast to be shown"
    return route(row) if row["source"] else printable(f"{turn(row['event'])}: {happening(row['event'])}")


class Events(Stream):
    """The newest on top."""

    TITLE = "Events"
    BINDING_GROUP_TITLE = "Events"
    BINDINGS: ClassVar[list[BindingType]] = [
        FREEZE,
        Binding("f", "flows", "Flows too", tooltip="Show starts and ends of flows as well, or no longer"),
        WHY,
    ]
    COLUMNS = (
        Column("TIME", lambda row: clock(row["time"])),
        Column("KIND", lambda row: row["kind"]),
        Column("WHAT", _what),
        Column("REASON", lambda row: row["reason"]),
        Column("MAPPING", lambda row: cell(row["mapping"]), above=100),
        Column("COUNT", lambda row: str(row["count"]), above=120, right=True),
    )

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.with_flows = False
        self._numbers = itertools.count(1)

    def key(self, row: Row) -> str:
        """Events have no number of their own."""
        return str(row["number"])

    def asking(self) -> Callable[[], Iterator[Row]]:
        """Starts and ends of flows may be thousands a second: they come only when asked for."""
        return partial(self.link.events, _FLOWS if self.with_flows else _QUIET)

    def completed(self, row: Row) -> Row:
        """What some kinds do not have is empty."""
        return {**_EMPTY, **row, "event": row, "number": next(self._numbers)}

    def what(self) -> str:
        """With flows, or without."""
        return "with starts and ends of flows" if self.with_flows else "without starts and ends of flows"

    def action_flows(self) -> None:
        """Show starts and ends of flows, too, or no longer."""
        self.with_flows = not self.with_flows
        self.listen()
        self.say()


_EMPTY: Row = {
    "time": "",
    "kind": "",
    "reason": "",
    "mapping": "",
    "source": "",
    "destination": "",
    "count": 1,
}
