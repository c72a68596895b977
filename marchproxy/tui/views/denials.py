"""What is refused: totals by reason and mapping or by who is refused, and the newest refusals one by one."""

import time
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Label

from marchproxy.client.units import size
from marchproxy.client.words import cell, meaning
from marchproxy.tui import allowing
from marchproxy.tui.facts import Rates
from marchproxy.tui.link import Page
from marchproxy.tui.table import Column, LiveTable
from marchproxy.tui.views.view import FREEZE, WHY, Browser
from marchproxy.tui.words import Row, clock, end, scaled, verdict, whole

BY = ("reason", "source", "destination", "service")
_SHOWN = 200
_FIRST = 50
"""Of those who are refused most."""


class Denials(Browser):
    """Added up above, the newest below."""

    TITLE = "Denials"
    BINDING_GROUP_TITLE = "Denials"
    PAUSE = 0.3
    WRITING = frozenset({"allow"})
    BINDINGS: ClassVar[list[BindingType]] = [
        FREEZE,
        Binding("b", "by", "By", tooltip="Totals by reason, by source, by destination, by service"),
        Binding("a", "allow", "Allow this", tooltip="Write a mapping that allows what was refused"),
        WHY,
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.by = BY[0]
        self._rates = Rates[str]()

    def compose(self) -> ComposeResult:
        """Totals, the filter while it is used, single refusals."""
        yield LiveTable(_TOTALS, _total_key, id="denials-totals")
        ends = LiveTable(_ENDS, _end_key, id="denials-ends")
        ends.display = False
        yield ends
        yield Label("", id="denials-state", classes="state", markup=False)
        yield self.make_filter()
        yield LiveTable(_RECORDS, _record_key, id="denials-table")

    @property
    def table(self) -> LiveTable:
        """The single refusals."""
        return self.query_one("#denials-table", LiveTable)

    def fetch(self) -> Any:
        """The newest refusals in which the filter's text occurs, and who is refused most if that is shown."""
        by = self.by
        most = self.link.top(by, "packets", _FIRST, denied=True) if by != BY[0] else None
        return self.link.flows(denied=True, limit=_SHOWN, text=self.text), by, most

    def present(self, answer: tuple[Page, str, Page | None]) -> None:
        """Show them."""
        newest, by, most = answer
        self.table.show(newest.rows)
        # Meanwhile it may be shown by something else.
        if most is not None and by == self.by:
            self.query_one("#denials-ends", LiveTable).show(most.rows)
        self.say()

    def action_by(self) -> None:
        """Add up by something else."""
        self.by = BY[(BY.index(self.by) + 1) % len(BY)]
        ends = self.query_one("#denials-ends", LiveTable)
        ends.show([])
        ends.display = self.by != BY[0]
        self.query_one("#denials-totals").display = self.by == BY[0]
        self.say()
        self.refresh_now()

    def present_status(self, status: Row) -> None:
        """Totals, with what is added a second."""
        rows = [
            {**row, "verdict": word}
            for key, word in (("denied", "deny"), ("audited", "audit"))
            for row in status[key]
        ]
        if self.frozen:
            return
        counts = {_total_key(row): row["packets"] for row in rows}
        rates = self._rates.of(counts, time.monotonic())
        table = self.query_one("#denials-totals", LiveTable)
        table.show([{**row, "rate": rates.get(_total_key(row), 0.0)} for row in rows])

    def action_allow(self) -> None:
        """From the refusal under the cursor to a mapping, by way of the review of changes."""
        row = self.table.record
        if row is None:
            return
        unable = allowing.obstacle(row)
        if unable:
            self.notify(unable, severity="warning", markup=False)
            return
        self.house.change(f"allow {allowing.summary(row)}", allowing.builder(row))

    @on(DataTable.RowSelected, "#denials-table")
    def opened(self) -> None:
        """Enter explains the refusal."""
        self.house.action_why()

    def say(self) -> None:
        """How many, and which."""
        count = len(self.table.records)
        newest = f"newest {count}" if count else "nothing was refused lately"
        parts = [newest, f"totals by {self.by}", *self.said_of_all()]
        self.query_one("#denials-state", Label).update("  ".join(parts))


def _total_key(row: Row) -> str:
    return f"{row['verdict']} {row['reason']} {row['mapping']}"


def _end_key(row: Row) -> str:
    return str(row["name"])


def _record_key(row: Row) -> str:
    ends = ("source", "source_port", "destination", "destination_port")
    return " ".join(str(row[name]) for name in ("time", "protocol", "reason", *ends))


_TOTALS = (
    Column("VERDICT", lambda row: verdict(row["verdict"])),
    Column("REASON", lambda row: row["reason"]),
    Column("MAPPING", lambda row: cell(row["mapping"])),
    Column("PACKETS", lambda row: whole(row["packets"]), right=True),
    Column("NOW", lambda row: scaled(row["rate"], "/s"), right=True),
    Column("BYTES", lambda row: size(row["bytes"]), above=90, right=True),
    Column("MEANING", lambda row: meaning(row["reason"]), above=110),
)
_ENDS = (
    Column("REFUSED MOST", lambda row: cell(row["name"]) if row["name"] else "(strangers)"),
    Column("PACKETS", lambda row: whole(row["packets"]), right=True),
    Column("NOW", lambda row: scaled(row["packets_per_s"], "/s"), right=True),
)
_RECORDS = (
    Column("TIME", lambda row: clock(row["time"])),
    Column("SOURCE", lambda row: end(row, "source")),
    Column("DESTINATION", lambda row: end(row, "destination")),
    Column("PROTO", lambda row: row["protocol"], above=90),
    Column("REASON", lambda row: row["reason"]),
    Column("COUNT", lambda row: whole(row["count"]), above=100, right=True),
    Column("MAPPING", lambda row: cell(row["mapping"]), above=110),
    Column("INTERFACE", lambda row: cell(row["interface"]), above=140),
)
