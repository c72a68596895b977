"""The flows that are carried, live."""

import time
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Label

from marchproxy.client.words import cell, endpoint
from marchproxy.tui.dialogs.question import Question
from marchproxy.tui.facts import Rates
from marchproxy.tui.link import Page
from marchproxy.tui.table import Column, LiveTable
from marchproxy.tui.views.view import FREEZE, WHY, Browser
from marchproxy.tui.words import Row, age, end, route, scaled, volume, whole

PAGE = 200
"""Flows on one page: the daemon sorts, whatever their number."""
_ORDERS = ("-bytes", "-packets", "-started", "-last_seen", "source", "destination", "mapping")
_NEWEST = "-started"


class Flows(Browser):
    """Sort, filter as you type, freeze, follow, cut."""

    TITLE = "Flows"
    BINDING_GROUP_TITLE = "Flows"
    PAUSE = 0.3
    WRITING = frozenset({"cut"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "order", "Sort", tooltip="Sort by the next column; a click on a title does as well"),
        Binding("r", "reverse", "Reverse", show=False, tooltip="Sort the other way round"),
        FREEZE,
        Binding("f", "follow", "Follow", tooltip="Newest first, with the cursor on the newest"),
        WHY,
        Binding("x", "cut", "Cut", tooltip="End the flow under the cursor"),
        Binding("right_square_bracket", "page(1)", "Next page", key_display="]", show=False),
        Binding("left_square_bracket", "page(-1)", "Page before", key_display="[", show=False),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.order = "-bytes"
        self.page = 0
        self.following = False
        self.total = 0
        self._rates = Rates[int]()

    def compose(self) -> ComposeResult:
        """A line of state, the filter while it is used, the table."""
        yield Label("", id="flows-state", classes="state", markup=False)
        yield self.make_filter()
        yield LiveTable(_COLUMNS, lambda row: str(row["id"]), id="flows-table")

    @property
    def table(self) -> LiveTable:
        """The rows."""
        return self.query_one("#flows-table", LiveTable)

    def fetch(self) -> Any:
        """One page of flows in the present order."""
        query = {"sort": self.order, "limit": PAGE, "offset": self.page * PAGE, "text": self.text}
        return self.link.flows(**query)

    def present(self, answer: Page) -> None:
        """Show it, with rates since the answer before."""
        self.total = answer.total
        counts = {row["id"]: row["bytes_sent"] + row["bytes_received"] for row in answer.rows}
        rates = self._rates.of(counts, time.monotonic())
        self.table.show([{**row, "rate": rates.get(row["id"])} for row in answer.rows])
        if self.following and answer.rows:
            self.table.move_cursor(row=0)
        self.say()

    def narrow(self) -> None:
        """The daemon looks for the text."""
        self.page = 0
        self.refresh_now()

    def action_order(self) -> None:
        """Sort by the next order."""
        position = _ORDERS.index(self.order) if self.order in _ORDERS else -1
        self._sort(_ORDERS[(position + 1) % len(_ORDERS)])

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self._sort(self.order[1:] if self.order.startswith("-") else f"-{self.order}")

    @on(DataTable.HeaderSelected, "#flows-table")
    def title_clicked(self, event: DataTable.HeaderSelected) -> None:
        """Sort by the column that was clicked."""
        order = self.table.order_at(event.column_index)
        if order:
            self._sort(order if self.order != order else order.removeprefix("-"))

    def action_follow(self) -> None:
        """Newest first, and stay there; again to let go."""
        self.following = not self.following
        if self.following:
            self.frozen = False
            self._sort(_NEWEST)
        self.say()

    def action_page(self, step: int) -> None:
        """Turn a page."""
        if step < 0 or (self.page + 1) * PAGE < self.total:
            self.page = max(self.page + step, 0)
            self.refresh_now()

    def action_cut(self) -> None:
        """End the flow under the cursor, after a yes."""
        row = self.table.record
        if row is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.house.do(
                    lambda: self.link.cut([row["id"]]), lambda count: self._said_cut(count, route(row))
                )

        self.app.push_screen(Question(f"Cut {route(row)}?", "Whoever has it may open the next."), answered)

    @on(DataTable.RowSelected, "#flows-table")
    def opened(self) -> None:
        """Enter explains the flow."""
        self.house.action_why()

    def _said_cut(self, count: int, what: str) -> None:
        self.notify(f"{what} is cut" if count else f"{what} had ended already")
        self.refresh_now()

    def _sort(self, order: str) -> None:
        self.order, self.page = order, 0
        if order != _NEWEST:
            self.following = False
        self.refresh_now()

    def say(self) -> None:
        """Which of how many, in which order."""
        count, first = len(self.table.records), self.page * PAGE
        way = "descending" if self.order.startswith("-") else "ascending"
        parts = [
            f"{whole(first + 1)}-{whole(first + count)} of {whole(self.total)}" if count else "no flows",
            f"by {self.order.removeprefix('-').replace('_', ' ')}, {way}",
            *(["following the newest"] if self.following else []),
            *self.said_of_all(),
        ]
        self.query_one("#flows-state", Label).update("  ".join(parts))


def _rate(row: Row) -> str:
    return "" if row["rate"] is None else scaled(row["rate"] * 8, "bit/s")


_COLUMNS = (
    Column("SOURCE", lambda row: end(row, "source"), sort="source"),
    Column("DESTINATION", lambda row: end(row, "destination"), sort="destination"),
    Column("PROTO", lambda row: row["protocol"], above=70),
    Column("BACKEND", lambda row: cell(endpoint(row, "backend")), above=150),
    Column("STATE", lambda row: row["state"], above=120),
    Column("BYTES", volume, sort="-bytes", right=True),
    Column("RATE", _rate, right=True),
    Column("AGE", lambda row: age(row["started"]), above=90, sort="-started", right=True),
    Column("MAPPING", lambda row: cell(row["mapping"]), above=100, sort="mapping"),
    Column("TIER", lambda row: row["tier"], above=140),
)
