"""`marchproxy revision`: the history, and the way back."""

from typing import TYPE_CHECKING, Annotated

import typer

from marchproxy.cli import intent
from marchproxy.cli.changes import show_changes
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.framework import environment_of, noun, verb
from marchproxy.cli.options import TABLE, ForceOption, OutputOption, YesOption
from marchproxy.cli.output import Output, serialise, show_one, show_rows
from marchproxy.cli.table import Columns
from marchproxy.client.changes import row
from marchproxy.client.covered import guard_way
from marchproxy.client.review import review
from marchproxy.model.change import diff
from marchproxy.model.documents import Document

if TYPE_CHECKING:
    from marchproxy.store.revision import Revision

app = noun("Look at the history and return to an earlier state")

_COLUMNS: Columns = {
    "NUMBER": "number",
    "TIME": "time",
    "AUTHOR": "author",
    "SHA-256": lambda revision: revision["sha256"][:12],
    "MESSAGE": "message",
}
_MOST = 10**9
"""More than there will be; SQLite's integers end further on."""


def _counted(value: str | int) -> int:
    """A number from 1; typer's own words for what is none are about types."""
    text = str(value)
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:20]) <= _MOST):
        raise typer.BadParameter(f"{text!r} is not a number from 1 to {_MOST}")
    return int(text)


Number = Annotated[int, typer.Argument(metavar="N", parser=_counted, help="Number of a revision")]


@verb(
    app,
    "list",
    "marchproxy revision list --limit 5",
    "marchproxy revision list --output json | jq '.[0].sha256'",
)
def list_all(
    context: typer.Context,
    limit: Annotated[
        int, typer.Option("--limit", parser=_counted, metavar="N", help="Show the newest N")
    ] = 20,
    output: OutputOption = TABLE,
) -> None:
    """List the revisions, newest first

    The SHA-256 is that of what export printed at that time.
    """
    environment = environment_of(context)
    with intent.opened(environment, read_only=True) as store:
        revisions = [_document(revision) for revision in store.revisions(limit)]
    show_rows(environment, output, revisions, _COLUMNS)


@verb(app, "show", "marchproxy revision show 3")
def show(context: typer.Context, number: Number, output: OutputOption = TABLE) -> None:
    """Show one revision and what it changed"""
    environment = environment_of(context)
    with intent.opened(environment, read_only=True) as store:
        document = _document(store.revision(number))
        changes = store.changes(number)
    if output is Output.TABLE:
        show_one(environment, output, document)
        show_changes(environment, output, changes)
    else:
        complete = {**document, "changes": [row(change) for change in changes]}
        environment.stdout.write(serialise(complete, output))


@verb(app, "diff", "marchproxy revision diff 3", "marchproxy revision diff 3 5 --output json")
def compare(
    context: typer.Context,
    first: Annotated[
        int, typer.Argument(metavar="A", parser=_counted, help="Number of the revision to start from")
    ],
    second: Annotated[
        int | None, typer.Argument(metavar="[B]", parser=_counted, help="The other; the newest unless given")
    ] = None,
    output: OutputOption = TABLE,
) -> None:
    """Show what turns revision A into revision B"""
    environment = environment_of(context)
    with intent.opened(environment, read_only=True) as store:
        before = store.snapshot_at(first)
        after = store.snapshot() if second is None else store.snapshot_at(second)
    show_changes(environment, output, diff(before, after))


@verb(app, "rollback", "marchproxy revision rollback 3", "marchproxy revision rollback 3 --yes")
def rollback(
    context: typer.Context,
    number: Number,
    yes: YesOption = False,
    force: ForceOption = False,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Return to an earlier state, as a new revision

    It shows what would change and asks first on a terminal; a script says --yes. History is kept: a rollback
    can itself be rolled back. Blocks that come back and cover this session or the appliance need --force.
    """
    environment = environment_of(context)
    with intent.opened(environment) as store:
        before, after = store.snapshot(), store.snapshot_at(number)
        review(before, after, environment.management_ports)
        if not force:
            guard_way(environment, store, before, after)
        if output is Output.TABLE:
            show_changes(environment, output, diff(before, after))
        if before != after:
            intent.confirm(environment, f"roll back to revision {number}", yes)
        revision = store.rollback(number, trial=environment.trial)
    intent.tell(environment, revision, before != after)
    if output is not Output.TABLE:
        show_one(environment, output, _document(revision))
    return intent.announce(environment)


def _document(revision: "Revision") -> Document:
    return {
        "number": revision.number,
        "time": revision.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "author": revision.author,
        "message": revision.message,
        "sha256": revision.sha256,
    }
