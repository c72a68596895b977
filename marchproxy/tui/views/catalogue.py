"""Tabs that show what is configured, and change it: services and mappings, blocks and limits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Label, TabbedContent, TabPane

from marchproxy.client import edits
from marchproxy.client.words import cell
from marchproxy.model import entities
from marchproxy.model.change import OF_APPLIANCE, Kind
from marchproxy.model.documents import Document, Entity, to_document
from marchproxy.model.names import DEFAULT_CLUSTER, qualify
from marchproxy.model.snapshot import Snapshot
from marchproxy.tui.dialogs.form import Form
from marchproxy.tui.forms import FIELDS, form_document
from marchproxy.tui.table import Column, LiveTable
from marchproxy.tui.views.view import Browser, occurs
from marchproxy.tui.words import Row, whole

type Order = Callable[[Row], Any]


@dataclass(frozen=True, slots=True)
class Shelf:
    """One kind of entity: how it is listed."""

    kind: Kind
    title: str
    columns: Sequence[Column]
    order: Order = lambda row: (row["cluster"], row["name"])


class Catalogue(Browser):
    """Lists of entities, with a form for each."""

    EVERY = 2.0
    SHELVES: ClassVar[Sequence[Shelf]] = ()
    WRITING = frozenset({"add", "edit", "remove", "disable"})
    SIDEWAYS = frozenset({"shelf"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "add", "New", tooltip="Write a new one"),
        Binding("e", "edit", "Edit", tooltip="Change the one under the cursor; Enter does as well"),
        Binding("x", "remove", "Remove", tooltip="Remove the one under the cursor"),
        Binding("left", "shelf(-1)", "List before", show=False, priority=True),
        Binding("right", "shelf(1)", "Next list", show=False, priority=True),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._number = 0
        """The revision that is shown."""
        self._snapshot: Snapshot | None = None
        self._counted: Mapping[str, Row] = {}

    def compose(self) -> ComposeResult:
        """A list for each kind, the filter while it is used."""
        yield self.make_filter()
        with TabbedContent():
            for shelf in self.SHELVES:
                with TabPane(shelf.title, id=f"shelf-{shelf.kind}"):
                    yield LiveTable(shelf.columns, _key, id=f"table-{shelf.kind}")
        yield Label("", id=f"{self.id}-detail", classes="detail", markup=False)

    @property
    def shelf(self) -> Shelf:
        """The list that is shown."""
        active = self.query_one(TabbedContent).active
        return next((shelf for shelf in self.SHELVES if f"shelf-{shelf.kind}" == active), self.SHELVES[0])

    @property
    def table(self) -> LiveTable:
        """The rows of the list that is shown."""
        return self.query_one(f"#table-{self.shelf.kind}", LiveTable)

    def fetch(self) -> Any:
        """What is configured, if it has changed."""
        return self.link.snapshot(self._number)

    def present(self, answer: tuple[int, Snapshot] | None) -> None:
        """Show it."""
        if answer is not None:
            self._number, self._snapshot = answer
            self._show()

    def narrow(self) -> None:
        """Everything is here already."""
        self._show()

    def action_shelf(self, step: int) -> None:
        """The next list, or the one before."""
        position = self.SHELVES.index(self.shelf)
        kind = self.SHELVES[(position + step) % len(self.SHELVES)].kind
        self.query_one(TabbedContent).active = f"shelf-{kind}"
        self.table.focus()

    def action_add(self) -> None:
        """A form with nothing in it."""
        self._edit(None, DEFAULT_CLUSTER)

    def action_edit(self) -> None:
        """A form with what there is."""
        if self.link.read_only:
            return
        if row := self.table.record:
            self._edit(row["entity"], row["cluster"])

    @on(DataTable.RowSelected)
    def selected(self) -> None:
        """The same by Enter."""
        self.action_edit()

    @on(DataTable.RowHighlighted)
    def highlighted(self) -> None:
        """Tell all about the row under the cursor."""
        row = self.table.record
        text = "" if row is None else "   ".join(_fields(row["document"]))
        self.query_one(f"#{self.id}-detail", Label).update(text)

    def action_remove(self) -> None:
        """Remove it, by way of the review of changes."""
        if row := self.table.record:
            kind, name, cluster = self.shelf.kind, row["name"], row["cluster"]
            self.house.change(
                f"remove {kind.label} {qualify(cluster, name) if cluster else name}",
                lambda snapshot: edits.drop(snapshot, kind, cluster, name),
            )

    def _edit(self, entity: Entity | None, cluster: str) -> None:
        kind = self.shelf.kind
        if kind not in FIELDS:
            self.notify(f"the command line changes this: marchproxy {kind.partition('_')[0]} --help")
            return
        title = f"New {kind.label}" if entity is None else f"{kind.label.capitalize()} {entity.name}"
        owner = "" if kind in OF_APPLIANCE else cluster

        def meant(made: Entity | None) -> None:
            if made is not None:
                self._put(kind, owner, entity, made)

        form = Form(title, kind, form_document(entity), fixed=entity is not None)
        self.app.push_screen(form, meant)

    def _put(self, kind: Kind, owner: str, before: Entity | None, made: Entity) -> None:
        def build(snapshot: Snapshot) -> Snapshot:
            if before is None:
                return edits.put(snapshot, kind, owner, made)
            return edits.exchange(snapshot, kind, owner, before, made)

        what = "add" if before is None else "set"
        self.house.change(f"{what} {kind.label} {qualify(owner, made.name) if owner else made.name}", build)

    def _show(self) -> None:
        if self._snapshot is None:
            return
        for shelf in self.SHELVES:
            rows = [
                row for row in self._rows(self._snapshot, shelf.kind) if occurs(self.text, row["document"])
            ]
            self.query_one(f"#table-{shelf.kind}", LiveTable).show(sorted(rows, key=shelf.order))

    def _rows(self, snapshot: Snapshot, kind: Kind) -> list[Row]:
        owners = [""] if kind in OF_APPLIANCE else [cluster.name for cluster in snapshot.clusters]
        return [
            {
                **self._counted.get(qualify(owner, entity.name) if owner else entity.name, {}),
                "name": entity.name,
                "cluster": owner,
                "entity": entity,
                "document": to_document(entity),
            }
            for owner in owners
            for entity in edits.entities(snapshot, kind, owner)
        ]


def _key(row: Row) -> str:
    return f"{row['cluster']}/{row['name']}"


def _fields(document: Document) -> list[str]:
    return [f"{name}: {cell(value)}" for name, value in document.items()]


def _said(name: str) -> Callable[[Row], str]:
    return lambda row: cell(row["document"].get(name))


def _named(row: Row) -> str:
    return qualify(row["cluster"], row["name"]) if row["cluster"] else row["name"]


def _is_over(row: Row) -> bool:
    expires = row["entity"].expires
    return expires is not None and expires <= datetime.now(UTC)


class Policy(Catalogue):
    """Who may talk to whom."""

    TITLE = "Policy"
    BINDING_GROUP_TITLE = "Policy"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "disable", "Disable", tooltip="Have a mapping expire now, or never again"),
    ]
    SHELVES = (
        Shelf(
            Kind.MAPPING,
            "Mappings",
            (
                Column("PRIO", lambda row: str(row["entity"].priority), right=True),
                Column("NAME", _named),
                Column("ACTION", lambda row: "✗ deny" if row["entity"].action == "deny" else "✓ allow"),
                Column("FROM", _said("sources")),
                Column("TO", _said("destinations")),
                Column("PROTO", _said("protocols"), above=90),
                Column("PORTS", _said("ports")),
                Column("LISTEN", _said("listen"), above=100),
                Column(
                    "EXPIRES", lambda row: "disabled" if _is_over(row) else _said("expires")(row), above=120
                ),
                Column("DESCRIPTION", _said("description"), above=150),
            ),
            lambda row: (row["cluster"], *row["entity"].precedence),
        ),
        Shelf(
            Kind.SERVICE,
            "Services",
            (
                Column("NAME", _named),
                Column("ADDRESSES", _said("addresses")),
                Column("PORT", _said("port"), right=True),
                Column("AUTH", _said("auth"), above=90),
                Column("HEALTH", _said("health"), above=90),
                Column("COLLECTION", _said("collection"), above=100),
                Column("TAGS", _said("tags"), above=120),
                Column("DESCRIPTION", _said("description"), above=140),
            ),
        ),
    )

    def action_disable(self) -> None:
        """A mapping is disabled by having it expire now; enabled, it never expires."""
        row = self.table.record
        if row is None or not isinstance(row["entity"], entities.Mapping):
            return
        over = _is_over(row)
        instant = None if over else datetime.now(UTC).replace(microsecond=0)
        before: Entity = row["entity"]
        made = replace(row["entity"], expires=instant)
        self.house.change(
            f"{'enable' if over else 'disable'} mapping {_named(row)}",
            lambda snapshot: edits.exchange(snapshot, Kind.MAPPING, row["cluster"], before, made),
        )


class Protection(Catalogue):
    """What nothing may come from or go to, and what may not exceed a rate."""

    TITLE = "Protection"
    BINDING_GROUP_TITLE = "Protection"
    SHELVES = (
        Shelf(
            Kind.BLOCK,
            "Blocks",
            (
                Column("BLOCK", lambda row: cell(row["name"])),
                Column("REASON", _said("reason")),
                Column("ORIGIN", _said("origin"), above=90),
                Column("EXPIRES", _said("expires")),
            ),
        ),
        Shelf(
            Kind.BLOCK_LIST,
            "Block lists",
            (
                Column("NAME", lambda row: cell(row["name"])),
                Column("ENTRIES", lambda row: whole(row["entity"].entries), right=True),
                Column("ORIGIN", _said("origin")),
                Column("REASON", _said("reason"), above=90),
                Column("EXPIRES", _said("expires")),
            ),
        ),
        Shelf(
            Kind.LIMIT,
            "Limits",
            (
                Column("NAME", lambda row: cell(row["name"])),
                Column("PER", _said("per")),
                Column("SERVICES", _said("services"), above=100),
                Column("PACKETS/S", _said("packets_per_second"), right=True),
                Column("BYTES/S", _said("bytes_per_second"), right=True),
                Column("FLOWS/S", _said("flows_per_second"), right=True),
                Column("PASSED", lambda row: whole(row.get("passed_packets", 0)), right=True),
                Column("DROPPED", lambda row: whole(row.get("dropped_packets", 0)), right=True),
            ),
        ),
    )

    def present_status(self, status: Row) -> None:
        """What limits let through and dropped."""
        self._counted = {row["name"]: row for row in status["limits"]}
        self._show()
