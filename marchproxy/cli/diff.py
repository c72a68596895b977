"""`marchproxy diff`: what a file would change, or what the daemon has not taken over."""

from typing import Annotated

import typer

from marchproxy.cli import intent
from marchproxy.cli.changes import show_changes
from marchproxy.cli.files import read_document
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.options import TABLE, ForClusterOption, OutputOption
from marchproxy.cli.proposal import propose
from marchproxy.client.control import Control
from marchproxy.model.change import diff
from marchproxy.model.snapshot import Snapshot

app = single()


@verb(app, "diff", "marchproxy diff -f site.yaml", "marchproxy diff --output json")
def compare(
    context: typer.Context,
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE", help="Compare with this")
    ] = None,
    cluster: ForClusterOption = None,
    output: OutputOption = TABLE,
) -> None:
    """Show what a file would change, or what the daemon has not taken over yet

    With -f: what apply of that file would do. Without: what was stored since the revision that the running
    daemon carries out. Nothing is printed where there is no difference, and JSON is an empty list.
    """
    environment = environment_of(context)
    if file is not None:
        held = intent.read(environment)
        changes = diff(held, propose(read_document(environment, file), file, cluster).build(held))
    else:
        applied = Control(environment).get("/v1/status")["revision"]["number"]
        with intent.opened(environment, read_only=True) as store:
            before = store.snapshot_at(applied) if applied else Snapshot(clusters=())
            changes = diff(before, store.snapshot())
    show_changes(environment, output, changes)
