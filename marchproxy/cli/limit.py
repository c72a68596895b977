"""`marchproxy limit`: rates that traffic may not exceed."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from marchproxy.cli import intent, suggest
from marchproxy.cli.context import Environment
from marchproxy.cli.editing import Editor
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.fields import Field, amount, given
from marchproxy.cli.framework import environment_of, noun, verb
from marchproxy.cli.options import TABLE, OutputOption, YesOption
from marchproxy.cli.output import show_one, show_rows
from marchproxy.cli.rows import row
from marchproxy.cli.table import Columns
from marchproxy.client import edits
from marchproxy.client.control import Control
from marchproxy.model.change import Kind
from marchproxy.model.documents import Document, Entity
from marchproxy.model.errors import DaemonNotRunning

app = noun("Manage rate limits: what is beyond them is dropped")

FIELDS = (
    Field("per", "--per", "WHAT", "What is counted apart: source (each address), service or total"),
    Field(
        *("services", "--service", "NAME", "Only for clients in this service; may be repeated"),
        many=True,
        suggest=suggest.services,
    ),
    Field("packets_per_second", "--packets-per-second", "N", "Packets in both directions; 10k, 1M", amount),
    Field("bytes_per_second", "--bytes-per-second", "N", "IP bytes in both directions; 500k, 1G", amount),
    Field("flows_per_second", "--flows-per-second", "N", "New conversations", amount),
    Field("burst", "--burst", "N", "How many may come at once; what comes in 100 ms unless given", amount),
    Field("exempt", "--exempt", "CIDR", "Client address or prefix it is not for; may be repeated", many=True),
)
EDITOR = Editor(Kind.LIMIT, {})
COLUMNS: Columns = {
    "NAME": "name",
    "PER": "per",
    "SERVICES": "services",
    "PACKETS/S": "packets_per_second",
    "BYTES/S": "bytes_per_second",
    "FLOWS/S": "flows_per_second",
    "BURST": "burst",
    "EXEMPT": "exempt",
    "PASSED": "passed_packets",
    "DROPPED": "dropped_packets",
}
COUNTED = ("passed_packets", "passed_bytes", "dropped_packets", "dropped_bytes")
LONGEST = 63
"""Characters of a name."""

Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name", autocompletion=suggest.limits)]
GivenName = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Its name; made from what it limits unless given"),
]


@verb(
    app,
    "add",
    "marchproxy limit add --per source --packets-per-second 10k --exempt 10.1.0.5",
    "marchproxy limit add --name backup --per service --service backup --bytes-per-second 100M",
    "marchproxy limit add --per source --flows-per-second 50 --burst 200",
    fields=FIELDS,
    required="per",
)
def add(context: typer.Context, name: GivenName = None, output: OutputOption = TABLE) -> ExitCode:
    """Add a rate limit

    Every limit that holds for a client must be kept; what exceeds one is dropped and counted, RATE_LIMITED.
    Of limits per source with the same kind of rate, the one whose service has the longest prefix around the
    client holds, so that a service may have more, or less, than everybody else. --burst counts packets, or
    bytes or flows in a limit without a packet rate. Traffic to the appliance itself is not limited.
    """
    return EDITOR.add(context, name or made_name(given(context)), "", output)


@verb(app, "list", "marchproxy limit list")
def list_all(context: typer.Context, output: OutputOption = TABLE) -> None:
    """List the rate limits, with what each has let through and dropped

    The counts are those of the running daemon; without one they are empty.
    """
    environment = environment_of(context)
    limits = edits.entities(intent.read(environment), Kind.LIMIT, "")
    show_rows(environment, output, rows(environment, limits), COLUMNS)


@verb(app, "show", "marchproxy limit show source-packets")
def show(context: typer.Context, name: Name, output: OutputOption = TABLE) -> None:
    """Show one rate limit with all its fields"""
    environment = environment_of(context)
    limit = edits.find(intent.read(environment), Kind.LIMIT, "", name)
    (found,) = rows(environment, [limit])
    show_one(environment, output, found)


@verb(
    app,
    "set",
    "marchproxy limit set source-packets --packets-per-second 20k",
    "marchproxy limit set backup --exempt ''",
    fields=FIELDS,
)
def change(context: typer.Context, name: Name, output: OutputOption = TABLE) -> ExitCode:
    """Change a rate limit

    Only the flags that are given change anything. --service and --exempt replace their whole list. An empty
    value, such as --burst '', returns a field to its default. The name stays what it was.
    """
    return EDITOR.change(context, name, "", output)


@verb(app, "remove", "marchproxy limit remove source-packets --yes")
def remove(context: typer.Context, name: Name, yes: YesOption = False) -> ExitCode:
    """Remove a rate limit

    It asks first on a terminal; a script says --yes.
    """
    return EDITOR.remove(context, name, "", yes)


def made_name(fields: Mapping[str, Any]) -> str:
    """`source-packets`, `service-web-lab-bytes-flows`: per what, for whom, and which rates."""
    services = [service.replace("/", ".") for service in fields.get("services", ())]
    rates = [rate for rate in ("packets", "bytes", "flows") if f"{rate}_per_second" in fields]
    return "-".join([str(fields.get("per", "")), *services, *rates])[:LONGEST].rstrip("-")


def rows(environment: Environment, limits: Iterable[Entity]) -> list[Document]:
    """Limits with their counts, which are None where no daemon tells them."""
    try:
        status = Control(environment).get("/v1/status")
    except DaemonNotRunning:
        status = {"limits": []}
    told = {limit["name"]: limit for limit in status["limits"]}
    return [
        row(limit) | {field: told.get(limit.name, {}).get(field) for field in COUNTED} for limit in limits
    ]
