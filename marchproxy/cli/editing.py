"""What `add`, `list`, `show`, `set` and `remove` do, the same for every noun."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from marchproxy.cli import intent
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.fields import amend, given
from marchproxy.cli.framework import environment_of
from marchproxy.cli.output import Output, show_one, show_rows
from marchproxy.cli.rows import row
from marchproxy.cli.table import Columns
from marchproxy.client import edits
from marchproxy.model.change import ENTITIES, OF_APPLIANCE, Kind
from marchproxy.model.documents import Document, Entity, read_entity, to_document
from marchproxy.model.names import DEFAULT_CLUSTER
from marchproxy.model.snapshot import Snapshot

if TYPE_CHECKING:
    from marchproxy.store.store import Store

type More = Callable[[Environment, Document, Output], Document]
"""Adds to an entity's document what else is known about it."""
type Then = Callable[[Store], None]
"""Writes what belongs to an entity and to no revision."""


def _by_name(entity: Any) -> Any:
    return entity.name


@dataclass(frozen=True, slots=True)
class Editor:
    """The verbs of one noun. Their `cluster` is empty for what belongs to the appliance and to no cluster."""

    kind: Kind
    columns: Columns
    order: Callable[[Any], Any] = _by_name

    def add(
        self, context: typer.Context, name: str, cluster: str, output: Output, then: Then | None = None
    ) -> ExitCode:
        """Store a new entity made of the given fields."""
        return self.put(context, self._read(amend({"name": name}, given(context))), cluster, output, then)

    def put(
        self, context: typer.Context, entity: Entity, cluster: str, output: Output, then: Then | None = None
    ) -> ExitCode:
        """Store a new entity."""
        environment = environment_of(context)
        code = intent.write(
            environment,
            self._message("add", entity.name, cluster),
            lambda snapshot: edits.put(snapshot, self.kind, cluster, entity),
            then,
        )
        self._echo(environment, entity, cluster, output)
        return code

    def change(
        self, context: typer.Context, name: str, cluster: str, output: Output, then: Then | None = None
    ) -> ExitCode:
        """Change the given fields. What the entity is now is read in the transaction that writes it."""
        changes = given(context)
        changed: list[Entity] = []

        def build(snapshot: Snapshot) -> Snapshot:
            held = edits.find(snapshot, self.kind, cluster, name)
            changed[:] = [self._read(amend(to_document(held), changes))]
            return edits.swap(snapshot, self.kind, cluster, changed[0])

        environment = environment_of(context)
        code = intent.write(environment, self._message("set", name, cluster), build, then)
        self._echo(environment, changed[0], cluster, output)
        return code

    def remove(self, context: typer.Context, name: str, cluster: str, yes: bool) -> ExitCode:
        """Remove an entity, after a yes."""
        environment = environment_of(context)
        message = self._message("remove", name, cluster)
        if not yes:
            edits.find(intent.read(environment), self.kind, cluster, name)
            intent.confirm(environment, message, yes)
        return intent.write(
            environment, message, lambda snapshot: edits.drop(snapshot, self.kind, cluster, name)
        )

    def show(
        self, context: typer.Context, name: str, cluster: str, output: Output, more: More | None = None
    ) -> None:
        """Print one entity with every field, and what `more` adds."""
        environment = environment_of(context)
        entity = edits.find(intent.read(environment), self.kind, cluster, name)
        document = self._row(entity, cluster)
        show_one(environment, output, more(environment, document, output) if more else document)

    def list(self, context: typer.Context, cluster: str, output: Output) -> None:
        """Print all of them."""
        environment = environment_of(context)
        entities = sorted(edits.entities(intent.read(environment), self.kind, cluster), key=self.order)
        show_rows(environment, output, [self._row(entity, cluster) for entity in entities], self.columns)

    def _echo(self, environment: Environment, entity: Entity, cluster: str, output: Output) -> None:
        """What was written, for programs; people have read the revision's number on stderr."""
        if output is not Output.TABLE:
            show_one(environment, output, self._row(entity, cluster))

    def _read(self, document: Document) -> Entity:
        return read_entity(ENTITIES[self.kind], document)

    def _row(self, entity: Entity, cluster: str) -> Document:
        return row(entity, None if self.kind in OF_APPLIANCE else cluster)

    def _message(self, what: str, name: str, cluster: str) -> str:
        owner = "" if cluster in ("", DEFAULT_CLUSTER) else f"{cluster}/"
        return f"{what} settings" if self.kind is Kind.SETTINGS else f"{what} {self.kind.label} {owner}{name}"
