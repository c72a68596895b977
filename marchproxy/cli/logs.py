"""`marchproxy logs`: what the daemon says about itself."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import typer

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.options import TABLE, OutputOption
from marchproxy.cli.output import Output, serialise, tell_rest
from marchproxy.cli.table import Row
from marchproxy.client.control import Control
from marchproxy.client.words import printable

app = single()

LAST = 1000
"""Records that are shown unless somebody says how many."""
BEFORE = 10
"""The same of those before what is followed."""
_COLOURS = {"warning": "yellow", "error": "red", "critical": "red", "debug": "dim"}


class Level(StrEnum):
    """What `--level` takes."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


@verb(
    app,
    "logs",
    "marchproxy logs",
    "marchproxy logs --level warning",
    "marchproxy logs --follow --text 10.1.3.4",
    "marchproxy logs --output json | jq -r .[].message",
)
def logs(
    context: typer.Context,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what is logged from now on, until Ctrl-C")
    ] = False,
    level: Annotated[Level, typer.Option("--level", help="Only this level, and what is worse")] = Level.DEBUG,
    text: Annotated[
        str | None,
        typer.Option(
            "--text", metavar="TEXT", help="Only where this occurs in message, logger, process or flow"
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", metavar="N", help="Show the last N; 1000 unless given, with --follow 10", min=1
        ),
    ] = None,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Show what the daemon has logged lately

    The running daemon keeps its last 2000 records and those of its workers, the oldest first; a daemon that
    starts begins anew, and journalctl has what was before. Debug records are there if it runs with -v. With
    --follow JSON is one object a line; when the daemon ends, people are told and see what the next one says,
    while JSON and YAML end with exit code 6.
    """
    environment = environment_of(context)
    control = Control(environment)
    query = {"level": level.value, "text": text, "limit": limit or (BEFORE if follow else LAST)}
    if follow:
        from marchproxy.cli.watch import Stream, watch

        stream = Stream("/v1/logs", "log records", _line)
        return watch(environment, control, stream, {"follow": True, **query}, limit=None, output=output)
    rows, headers = control.fetch("/v1/logs", **query)
    if output is Output.TABLE:
        environment.stdout.writelines(_line(environment, row) for row in rows)
    else:
        environment.stdout.write(serialise(rows, output))
    tell_rest(environment, output, len(rows), headers)
    return ExitCode.DONE


def _line(environment: Environment, row: Row) -> str:
    return "".join(f"{line}\n" for line in _lines(environment, row))


def _lines(environment: Environment, row: Row) -> Iterator[str]:
    word = row["level"]
    label = f"{word:<8}"
    when = row["time"][:19].replace("T", " ")
    who = "" if row["process"] == "daemon" else f"{row['process']}: "
    about = f"  (flow {row['flow']})" if row["flow"] else ""
    shown = environment.colour(label, _COLOURS[word]) if word in _COLOURS else label
    yield f"{when} {shown} {printable(who + row['message'])}{about}"
    yield from (f"    {printable(line)}" for line in row["exception"].splitlines())
