"""`marchproxy flows`: the conversations that are carried, and what was refused."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from marchproxy.cli import suggest
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode, WrongUsage
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.options import TABLE, OutputOption
from marchproxy.cli.output import Output, show_rows
from marchproxy.cli.table import Columns, Row
from marchproxy.client.control import Control
from marchproxy.client.units import duration, size
from marchproxy.client.words import endpoint, printable
from marchproxy.model.errors import InvalidValue, NotFound

app = single()

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


def _option(name: str, metavar: str, text: str, **settings: Any) -> Any:
    return typer.Option(f"--{name}", metavar=metavar, help=text, **settings)


@verb(
    app,
    "flows",
    "marchproxy flows",
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
    source: Annotated[str | None, _option("source", "ADDR", "Only from this address or prefix")] = None,
    destination: Annotated[
        str | None, _option("destination", "ADDR", "Only to this address or prefix")
    ] = None,
    port: Annotated[str | None, _option("port", "N", "Only with this port on either side")] = None,
    protocol: Annotated[str | None, _option("protocol", "P", "Only tcp, udp or icmp")] = None,
    mapping: Annotated[
        str | None,
        _option("mapping", "NAME", "Only decided by this mapping", autocompletion=suggest.mappings),
    ] = None,
    service: Annotated[
        str | None,
        _option("service", "NAME", "Only from or to this service", autocompletion=suggest.services),
    ] = None,
    reason: Annotated[
        str | None, _option("reason", "REASON", "Only with this reason, such as NO_MAPPING")
    ] = None,
    limit: Annotated[int | None, _option("limit", "N", "Show at most N; 1000 unless given", min=1)] = None,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Show the conversations that are carried, or what was refused

    With --follow each start, end and refusal is shown as it happens, with --denied only refusals; JSON is
    then one object a line, and Ctrl-C is a normal end. The verdict audit means: it would have been refused,
    and audit let it through. What a client tries again within a second is one row with a count. Mappings and
    services are named as cluster/name or by their name alone. `flows cut ID` ends running flows by the id
    that --output json shows; whoever has one may open the next.
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
    }
    if follow:
        from marchproxy.cli.watch import watch

        return watch(environment, control, filters, denied=denied, limit=limit, output=output)
    rows = control.get("/v1/flows", denied=denied, limit=limit or DEFAULT_LIMIT, **filters)
    show_rows(environment, output, rows, REFUSED if denied else CARRIED)
    if len(rows) >= (limit or DEFAULT_LIMIT) and output is Output.TABLE:
        environment.note(f"these are the first {len(rows)}: --limit shows more")
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
