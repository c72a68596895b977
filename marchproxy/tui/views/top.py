"""Who carries most, and what is refused most."""

from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Label

from marchproxy.client.units import size
from marchproxy.client.words import cell
from marchproxy.tui.link import Page
from marchproxy.tui.table import Column, LiveTable
from marchproxy.tui.views.view import FREEZE, Browser
from marchproxy.tui.words import Row, scaled, whole

BY = ("service", "source", "destination", "mapping", "reason")
_SORTS = ("bytes_per_s", "packets_per_s", "bytes", "packets", "flows")
_SHOWN = 100


class Top(Browser):
    """The daemon counts and sorts; one walk over the flows a second serves everybody who looks."""

    TITLE = "Top"
    BINDING_GROUP_TITLE = "Top"
    SIDEWAYS = frozenset({"by"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "by(1)", "By", tooltip="Services, sources, destinations, mappings, reasons of refusals"),
        Binding("right", "by(1)", "Next", show=False, priority=True),
        Binding("left", "by(-1)", "Before", show=False, priority=True),
        Binding("s", "order", "Sort", tooltip="Sort by the next column; a click on a title does as well"),
        FREEZE,
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.by = BY[0]
        self.order = _SORTS[0]
        self.total = 0

    def compose(self) -> ComposeResult:
        """A line of state, the filter while it is used, the table."""
        yield Label("", id="top-state", classes="state", markup=False)
        yield self.make_filter()
        yield LiveTable(_COLUMNS, _key, id="top-table")

    @property
    def table(self) -> LiveTable:
        """The rows."""
        return self.query_one("#top-table", LiveTable)

    def fetch(self) -> Any:
        """The first of them."""
        return self.link.top(self.by, self.order, _SHOWN)

    def present(self, answer: Page) -> None:
        """Those in which the filter's text occurs."""
        self.total = answer.total
        wanted = self.text.casefold()
        self.table.show([row for row in answer.rows if wanted in _key(row).casefold()])
        self.say()

    def action_by(self, step: int) -> None:
        """Count by something else."""
        self.by = BY[(BY.index(self.by) + step) % len(BY)]
        self.refresh_now()

    def action_order(self) -> None:
        """Sort by the next column."""
        self._sort(_SORTS[(_SORTS.index(self.order) + 1) % len(_SORTS)])

    @on(DataTable.HeaderSelected, "#top-table")
    def title_clicked(self, event: DataTable.HeaderSelected) -> None:
        """Sort by the column that was clicked."""
        order = self.table.order_at(event.column_index)
        if order:
            self._sort(order)

    def say(self) -> None:
        """By what, in which order, of how many."""
        parts = [
            f"by {self.by}, {whole(len(self.table.records))} of {whole(self.total)}",
            f"most {self.order.replace('_per_s', ' a second').replace('_', ' ')} first",
            *self.said_of_all(),
        ]
        self.query_one("#top-state", Label).update("  ".join(parts))

    def _sort(self, order: str) -> None:
        self.order = order
        self.refresh_now()


def _key(row: Row) -> str:
    return f"{row['name']} {row['mapping']}" if row.get("mapping") else str(row["name"])


_COLUMNS = (
    Column("NAME", lambda row: cell(_key(row)) if _key(row) else "(strangers)"),
    Column("RATE", lambda row: scaled(row["bytes_per_s"] * 8, "bit/s"), sort="bytes_per_s", right=True),
    Column("PACKETS/S", lambda row: scaled(row["packets_per_s"], ""), sort="packets_per_s", right=True),
    Column("BYTES", lambda row: size(row["bytes"]), sort="bytes", right=True),
    Column("PACKETS", lambda row: whole(row["packets"]), above=70, sort="packets", right=True),
    Column("FLOWS", lambda row: whole(row.get("flows") or 0), sort="flows", right=True),
)
