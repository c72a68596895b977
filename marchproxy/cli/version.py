"""`marchproxy version`: what this is, and what it runs on."""

import os
import platform

import typer

from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.options import TABLE, OutputOption
from marchproxy.cli.output import show_one
from marchproxy.version import VERSION

app = single()


@verb(app, "version", "marchproxy version", "marchproxy version --output json | jq -r .version")
def version(context: typer.Context, output: OutputOption = TABLE) -> None:
    """Show the version and what it runs on

    marchproxy --version prints the version alone, and sooner.
    """
    system = os.uname()
    document = {
        "version": VERSION,
        "python": platform.python_version(),
        "kernel": system.release,
        "machine": system.machine,
    }
    show_one(environment_of(context), output, document)
