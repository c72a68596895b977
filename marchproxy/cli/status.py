"""`marchproxy status`: whether the appliance serves, and how."""

import typer

from marchproxy.cli import glance
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.options import TABLE, OutputOption

app = single()


@verb(app, "status", "marchproxy status", "marchproxy status --output json | jq .counters")
def status(context: typer.Context, output: OutputOption = TABLE) -> ExitCode:
    """Show whether the appliance serves, and how

    Exit code 0: it serves. 1: it serves, but something is wrong, and the first lines say what. 6: no daemon
    answers; what an earlier one left in the kernel is then still in force.
    """
    return glance.status(environment_of(context), output)
