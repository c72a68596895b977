"""The first tab: is it healthy, what goes through, what changed last."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Label, Sparkline, Static

from marchproxy.client.units import duration, size
from marchproxy.client.words import cell, meaning, place, printable
from marchproxy.tui.facts import Sample
from marchproxy.tui.views.view import View
from marchproxy.tui.words import Row, counted, scaled, whole

if TYPE_CHECKING:
    from marchproxy.store.revision import Revision

_CURVES: Mapping[str, tuple[str, Callable[[Sample], str]]] = {
    "bits": ("traffic", lambda sample: scaled(sample.bits, "bit/s")),
    "packets": ("packets", lambda sample: scaled(sample.packets, "/s")),
    "flows": ("flows", lambda sample: whole(sample.flows)),
    "denied": ("denied", lambda sample: scaled(sample.denied, "/s")),
}
_REVISIONS = 8
_DENIALS = 6


class Curve(Vertical):
    """One figure and how it came about."""

    def __init__(self, what: str) -> None:
        super().__init__(id=f"curve-{what}", classes="curve")
        self._what = what

    def compose(self) -> ComposeResult:
        """Its name with the present value, above the curve."""
        yield Label(self._caption(None))
        yield Sparkline([0.0])

    def show(self, points: Sequence[float], latest: Sample | None) -> None:
        """Draw it anew."""
        self.query_one(Label).update(self._caption(latest))
        self.query_one(Sparkline).data = points

    def _caption(self, latest: Sample | None) -> Text:
        name, value = _CURVES[self._what]
        return Text.assemble((f"{name} ", ""), (value(latest) if latest else "…", "bold"))


class Overview(View):
    """Everything at a glance."""

    TITLE = "Overview"
    EVERY = 2.0

    def compose(self) -> ComposeResult:
        """Curves above, panels below."""
        with Horizontal(id="curves"):
            for what in _CURVES:
                yield Curve(what)
        with VerticalScroll(id="panels"):
            for name in ("health", "interfaces", "backends", "certificates", "denials", "revisions"):
                panel = Static(id=f"panel-{name}", classes="panel")
                panel.border_title = {"revisions": "changed last", "denials": "denied most"}.get(name, name)
                yield panel

    def focus_content(self) -> None:
        """Scroll by keyboard."""
        self.query_one("#panels").focus()

    def fetch(self) -> Any:
        """What was changed last."""
        return self.link.revisions(_REVISIONS)

    def present(self, answer: "list[Revision]") -> None:
        """Show it."""
        self._fill("revisions", _grid(_revision(revision) for revision in answer))

    def present_status(self, status: Row) -> None:
        """Curves and panels."""
        history = self.house.history
        for what in _CURVES:
            curve = self.query_one(f"#curve-{what}", Curve)
            curve.show(history.curve(what, max(curve.size.width, 10)), history.latest)
        self._fill("health", Text("\n").join(_health(status)))
        self._fill("interfaces", _grid(map(_interface, status["interfaces"])))
        backends = sorted(status["backends"], key=lambda row: row["state"] != "down")
        self._fill("backends", _grid(map(_backend, backends[:12])) if backends else None)
        certificates = status["certificates"]
        self._fill("certificates", _grid(map(_certificate, certificates)) if certificates else None)
        denied = status["denied"][:_DENIALS]
        self._fill("denials", _grid(map(_denial, denied)) if denied else None)

    def _fill(self, name: str, content: Table | Text | None) -> None:
        panel = self.query_one(f"#panel-{name}", Static)
        panel.display = content is not None
        if content is not None:
            panel.update(content)


def _grid(rows: Iterable[Sequence[str | Text]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for row in rows:
        # A plain string would be read as markup, and others write them.
        table.add_row(*(each if isinstance(each, Text) else Text(each) for each in row))
    return table


def _health(status: Row) -> Iterator[Text]:
    if status["healthy"]:
        yield Text("✓ serving")
    yield from (Text(f"✗ {printable(problem)}") for problem in status["problems"])
    yield from (Text(f"! {printable(warning)}") for warning in status["warnings"])
    tier, revision = status["tier"], status["revision"]
    applied = (
        f"revision {revision['number']}, applied {revision['applied'][:19].replace('T', ' ') or 'never'}"
    )
    yield Text(f"{applied}, tier {tier['name']} ({printable(tier['reason'])})")
    listening = counted(status["listener_count"] + len(status["explicit"]), "listener")
    yield Text(
        f"up {duration(status['uptime_s'])}, {listening}, {counted(len(status['host_names']), 'host name')}"
    )
    tables = [
        f"{table['name']} {table['used'] / table['limit']:.0%}"
        for table in status["flow_table"]
        if table["limit"]
    ]
    if tables:
        yield Text(f"filled: {', '.join(tables)}")
    if status["lost_events"]:
        yield Text(f"! {whole(status['lost_events'])} events came too fast to be told; they are counted")


def _interface(row: Row) -> Sequence[str | Text]:
    sign = "✓" if row["attached"] and not row["problem"] else "✗"
    how = f"attached by {row['attached']}" if row["attached"] else "not attached"
    return f"{sign} {cell(row['name'])}", row["role"], f"mode {row['mode']}", how, printable(row["problem"])


def _backend(row: Row) -> Sequence[str | Text]:
    sign = {"down": "✗", "up": "✓"}.get(row["state"], "·")
    drained = "drained" if row["drained"] else ""
    return (
        f"{sign} {place(row['address'], row['port'])}",
        cell(row["service"]),
        row["check"],
        row["state"],
        drained,
        printable(row["why"]),
    )


def _certificate(row: Row) -> Sequence[str | Text]:
    sign = "✓" if row["usable"] and not _is_over(row["expires"]) else "✗"
    hosts = ", ".join(row["hosts"][:3]) or "-"
    when = f"expires {row['expires'][:10]}" if row["expires"] else "not there"
    return f"{sign} {cell(row['name'])}", cell(hosts), when


def _is_over(instant: str) -> bool:
    return bool(instant) and datetime.fromisoformat(instant) <= datetime.now(UTC)


def _denial(row: Row) -> Sequence[str | Text]:
    by = f"by {row['mapping']}" if row["mapping"] else ""
    return row["reason"], whole(row["packets"]), size(row["bytes"]), by, meaning(row["reason"])


def _revision(revision: "Revision") -> Sequence[str | Text]:
    when = revision.time.isoformat(sep=" ", timespec="seconds")[:19]
    return str(revision.number), when, printable(revision.author), printable(revision.message)
