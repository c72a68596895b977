"""`marchproxy apply`: make the appliance equal to a file, or import a fleet file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from marchproxy.cli import intent
from marchproxy.cli.changes import show_changes
from marchproxy.cli.context import Environment
from marchproxy.cli.cuts import foresee, show_cuts
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.files import read_document
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.intent import show_warnings
from marchproxy.cli.options import TABLE, ForceOption, ForClusterOption, OutputOption, YesOption
from marchproxy.cli.output import Output, serialise
from marchproxy.cli.proposal import Proposal, propose
from marchproxy.client.changes import action, row, summary
from marchproxy.client.covered import guard_way
from marchproxy.client.review import review
from marchproxy.client.words import printable
from marchproxy.model.change import Change, diff
from marchproxy.model.errors import Conflict
from marchproxy.model.snapshot import Snapshot

app = single()

_MANY = 5_000
"""Changes that take seconds to write, at a few thousand a second."""

FileOption = Annotated[str, typer.Option("--file", "-f", metavar="FILE", help="JSON or YAML; - is stdin")]
MessageOption = Annotated[str, typer.Option("--message", metavar="TEXT", help="What revision list will show")]


@verb(
    app,
    "apply",
    "marchproxy apply -f site.yaml --dry-run",
    "marchproxy apply -f site.yaml --yes --message 'the new web servers'",
    "marchproxy apply -f site.yaml --confirm 60",
    "marchproxy apply -f fleet.json --cluster lab",
)
def apply(
    context: typer.Context,
    file: FileOption,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing")
    ] = False,
    yes: YesOption = False,
    force: ForceOption = False,
    message: MessageOption = "",
    cluster: ForClusterOption = None,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Make the appliance equal to a file, or import a fleet file

    A file of our own format (what export prints, or just services and mappings) makes its clusters equal to
    itself: what it leaves out is removed. Clusters it does not name stay, and so does what belongs to no
    cluster (interfaces, listeners, limits, blocks, settings), each unless the file has it. One with clusters
    and interfaces is all of the appliance, since export leaves out what there is none of. The changes are
    shown first. Where something would be changed or removed it asks; a script says --yes.

    A fleet import file only adds and updates. With --dry-run the running daemon is asked which flows the
    change would cut.
    """
    environment = environment_of(context)
    proposal = propose(read_document(environment, file), file, cluster)
    if not dry_run:
        return _carry_out(environment, proposal, message or _message(file), yes, force, output)
    with intent.opened(environment, read_only=True) as store:
        before = store.snapshot()
        after = proposal.build(before)
        if not force:
            guard_way(environment, store, before, after)
    show_warnings(environment, review(before, after, environment.management_ports))
    changes = diff(before, after)
    cuts = foresee(environment, before.sha256(), changes)
    _show(environment, output, changes, None, cuts=cuts)
    return ExitCode.DONE


def _carry_out(
    environment: Environment, proposal: Proposal, message: str, yes: bool, force: bool, output: Output
) -> ExitCode:
    with intent.opened(environment) as store:
        before = store.snapshot()
        after = proposal.build(before)
        review(before, after, environment.management_ports)
        if not force:
            guard_way(environment, store, before, after)
        changes = diff(before, after)
        if output is Output.TABLE and changes:
            show_changes(environment, output, changes)
        if proposal.replaces and any(action(change) != "add" for change in changes):
            intent.confirm(environment, f"apply this: {summary(changes)}", yes)
        if len(changes) >= _MANY:
            environment.note(f"writing {len(changes)} changes: this takes a while")
        revision = intent.commit(environment, store, message, _unless_changed(before, after))
    if output is not Output.TABLE:
        _show(environment, output, changes, revision.number)
    return intent.announce(environment)


def _unless_changed(before: Snapshot, after: Snapshot) -> Callable[[Snapshot], Snapshot]:
    """What was shown and agreed to is what is written, or nothing is."""

    def build(snapshot: Snapshot) -> Snapshot:
        if snapshot != before:
            raise Conflict(
                "somebody changed the store meanwhile", hint="look at the changes again, then apply"
            )
        return after

    return build


def _show(
    environment: Environment, output: Output, changes: Sequence[Change], revision: int | None, **more: Any
) -> None:
    """The changes, and of a dry run `cuts`: the daemon's preview, null where it is not known."""
    if output is Output.TABLE:
        show_changes(environment, output, changes)
        show_cuts(environment, more.get("cuts"))
        return
    document = {"revision": revision, "changes": [row(change) for change in changes], **more}
    environment.stdout.write(serialise(document, output))


def _message(file: str) -> str:
    name = "stdin" if file == "-" else printable(Path(file).name)
    return f"apply {name}"[:200]
