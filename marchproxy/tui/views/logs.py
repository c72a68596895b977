"""What the daemon and its workers say about themselves."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Label

from marchproxy.client.words import printable
from marchproxy.tui.table import Column
from marchproxy.tui.views.stream import Stream
from marchproxy.tui.views.view import FREEZE
from marchproxy.tui.words import Row

LEVELS = ("debug", "info", "warning", "error")
_SIGNS = {"debug": "·", "info": "·", "warning": "!", "error": "✗", "critical": "✗"}


def _level(row: Row) -> str:
    return f"{_SIGNS.get(row['level'], '·')} {row['level']}"


def _first_line(row: Row) -> str:
    return printable(row["message"].partition("\n")[0])


class Logs(Stream):
    """The newest on top, and all of the one under the cursor below."""

    TITLE = "Logs"
    BINDING_GROUP_TITLE = "Logs"
    KEPT = 1000
    BINDINGS: ClassVar[list[BindingType]] = [
        FREEZE,
        Binding("l", "level", "Level", tooltip="From which level on records are shown; the next, or all"),
    ]
    COLUMNS = (
        Column("TIME", lambda row: row["time"][11:19]),
        Column("DATE", lambda row: row["time"][:10], above=120),
        Column("LEVEL", _level),
        Column("PROCESS", lambda row: row["process"], above=100),
        Column("MESSAGE", _first_line),
        Column("FLOW", lambda row: str(row["flow"] or ""), above=150),
    )

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.level = LEVELS[0]
        self._lost = itertools.count(1)

    def compose(self) -> ComposeResult:
        """All of one record below."""
        yield from super().compose()
        yield Label("", id="logs-detail", classes="detail", markup=False)

    def key(self, row: Row) -> str:
        """A daemon that starts counts anew, and a stream that was interrupted tells what it told before."""
        return f"{row['time']} {row['number']}"

    def asking(self) -> Callable[[], Iterator[Row]]:
        """What the daemon has kept, and then what it says."""
        return partial(self.link.logs, self.level, self.KEPT)

    def completed(self, row: Row) -> Row:
        """Records that came too fast are a line as well."""
        if row["kind"] != "lost":
            return row
        text = f"{row['count']} records came too fast to be shown"
        return {**_EMPTY, "number": f"lost {next(self._lost)}", "message": text}

    def what(self) -> str:
        """From which level on."""
        return "all levels" if self.level == LEVELS[0] else f"{self.level} and worse"

    def action_level(self) -> None:
        """From the next level on."""
        self.level = LEVELS[(LEVELS.index(self.level) + 1) % len(LEVELS)]
        self.forget()
        self.listen()
        self.refresh_now()

    @on(DataTable.RowHighlighted)
    def highlighted(self) -> None:
        """Show all of it."""
        row = self.table.record
        self.query_one("#logs-detail", Label).update("" if row is None else _whole(row))


_EMPTY: Row = {"time": "", "level": "warning", "process": "", "logger": "", "flow": 0, "exception": ""}


def _whole(row: Row) -> str:
    """The last lines of a traceback say most."""
    lines = [f"{row['logger']}: {printable(row['message'])}" if row["logger"] else row["message"]]
    return "\n".join([*lines, *(printable(line) for line in row["exception"].splitlines()[-3:])])
