"""`marchproxy flows`: the conversations that are carried, and what was refused."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode, WrongUsage
from marchproxy.cli.flowfilters import (
    DestinationOption,
    MappingOption,
    PortOption,
    ProtocolOption,
    ReasonOption,
    ServiceOption,
    SourceOption,
    TextOption,
)
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.options import TABLE, OutputOption
from marchproxy.cli.output import show_rows, tell_rest
from marchproxy.cli.table import Columns, Row
from marchproxy.client.control import Control
from marchproxy.client.units import duration, size
from marchproxy.client.words import endpoint, printable
from marchproxy.model.errors import InvalidValue, NotFound

app = single()


class Sort(StrEnum):
    """What `--sort` takes."""

    STARTED = "started"
    LAST_SEEN = "last_seen"
    BYTES = "bytes"
    PACKETS = "packets"
    SOURCE = "source"
    DESTINATION = "destination"
    MAPPING = "mapping"


_RISING = frozenset({Sort.SOURCE, Sort.DESTINATION, Sort.MAPPING})
"""Where people expect the lowest first."""

DEFAULT_LIMIT = 1000


def _age(row: Row) -> str:
    started = datetime.fromisoformat(row["started"]) if row["started"] else datetime.now(UTC)
    return duration((datetime.now(UTC) - started).total_seconds())


CARRIED: Columns = {
    "SOURCE": lambda row: endpoint(row, "source"),
    "DESTINATION": lambda row: endpoint(row, "destination"),
    "PROTOCOL": "protocol",
    "BACKEND": lambda row: endpoint(row, "backend"),
    "STATE": "state",
    "TIER": "tier",
    "SENT": lambda row: size(row["bytes_sent"]),
    "RECEIVED": lambda row: size(row["bytes_received"]),
    "AGE": _age,
    "MAPPING": "mapping",
}
REFUSED: Columns = {
    "TIME": "time",
    "VERDICT": "verdict",
    "SOURCE": lambda row: endpoint(row, "source"),
    "DESTINATION": lambda row: endpoint(row, "destination"),
    "PROTOCOL": "protocol",
    "REASON": "reason",
    "TIER": "tier",
    "INTERFACE": "interface",
    "FROM": "source_service",
    "TO": lambda row: row["name"] or row["destination_service"],
    "MAPPING": "mapping",
    "COUNT": "count",
}


@verb(
    app,
    "flows",
    "marchproxy flows",
    "marchproxy flows --sort bytes --limit 10",
    "marchproxy flows --denied --source 10.1.0.0/16",
    "marchproxy flows --follow --service web --output json",
    "marchproxy flows cut 4711",
)
def flows(
    context: typer.Context,
    cut: Annotated[
        list[str] | None,
        typer.Argument(metavar="[cut ID...]", help="End these flows at once", show_default=False),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show what happens from now on, until Ctrl-C")
    ] = False,
    denied: Annotated[
        bool, typer.Option("--denied", help="Show what was refused, or let through by audit, newest first")
    ] = False,
    source: SourceOption = None,
    destination: DestinationOption = None,
    port: PortOption = None,
    protocol: ProtocolOption = None,
    mapping: MappingOption = None,
    service: ServiceOption = None,
    reason: ReasonOption = None,
    text: TextOption = None,
    sort: Annotated[
        Sort | None,
        typer.Option("--sort", help="Sort by: amounts and times with the highest first, names from A to Z"),
    ] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="Turn the order round")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="Show at most N; 1000 unless given", min=1)
    ] = None,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Show the conversations that are carried, or what was refused

    With --follow each start, end and refusal is shown as it happens, with --denied only refusals; JSON is
    then one object a line, and Ctrl-C is a normal end. When the daemon ends, people are told and see what
    happens once it is back; JSON and YAML end with exit code 6, since something may be missing. The verdict
    audit means: it would have been refused, and audit let it through. What a client tries again within a
    second is one row with a count. Mappings and services are named as cluster/name or by their name alone.
    `flows cut ID` ends running flows by the id that --output json shows; whoever has one may open the next.
    """
    environment = environment_of(context)
    control = Control(environment)
    if cut:
        return _cut(environment, control, cut)
    filters = {
        "source": source,
        "destination": destination,
        "port": port,
        "protocol": protocol,
        "mapping": mapping,
        "service": service,
        "reason": reason,
        "text": text,
    }
    if (sort or reverse) and (follow or denied):
        raise WrongUsage("--sort is for flows that are carried: events and refusals have their own order")
    if reverse and not sort:
        raise WrongUsage("--reverse is for an order that --sort names")
    order = f"{'-' if (sort in _RISING) is reverse else ''}{sort}" if sort else None
    if follow:
        from marchproxy.cli.watch import EVENTS, FLOWS, REFUSALS, watch

        kinds = REFUSALS if denied else FLOWS
        query = {"kind": kinds, **filters}
        return watch(environment, control, EVENTS, query, limit=limit, output=output)
    asked = {"denied": denied, "limit": limit or DEFAULT_LIMIT, **filters, "sort": order}
    rows, headers = control.fetch("/v1/flows", **asked)
    show_rows(environment, output, rows, REFUSED if denied else CARRIED)
    tell_rest(environment, output, len(rows), headers)
    return ExitCode.DONE


def _cut(environment: Environment, control: Control, words: list[str]) -> ExitCode:
    verb_, *numbers = words
    if verb_ != "cut" or not numbers:
        raise WrongUsage(f"flows {printable(verb_)}: there is flows cut ID, and nothing else")
    ids = [_read_id(number) for number in numbers]
    answer = control.post("/v1/flows/cut", {"ids": ids})
    environment.note(f"cut {answer['cut']} of {len(set(ids))} flows")
    if answer["unknown"]:
        gone = ", ".join(map(str, answer["unknown"]))
        raise NotFound("flow", gone, hint="it may have ended: marchproxy flows --output json shows ids")
    return ExitCode.DONE


def _read_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text)):
        raise InvalidValue("id", text, "a number from 1, as flows --output json shows")
    return int(text)
