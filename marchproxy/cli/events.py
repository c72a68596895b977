"""`marchproxy events`: everything that happens, as it happens."""

from typing import Annotated

import typer

from marchproxy.cli.errors import ExitCode
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
from marchproxy.client.control import Control

app = single()

_ALL = "all"


def _kinds(context: typer.Context, incomplete: str) -> list[str]:
    from marchproxy.dataplane.records import EventKind

    done, comma, _ = incomplete.rpartition(",")
    return [done + comma + kind for kind in EventKind]


@verb(
    app,
    "events",
    "marchproxy events",
    "marchproxy events --kind problem,reload,backend,interface",
    "marchproxy events --service web --output json | jq -c .kind",
)
def events(
    context: typer.Context,
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            metavar="KIND[,KIND]",
            help="Only flow-start, flow-end, denied, audited, request, backend, reload, interface, problem",
            autocompletion=_kinds,
        ),
    ] = _ALL,
    source: SourceOption = None,
    destination: DestinationOption = None,
    port: PortOption = None,
    protocol: ProtocolOption = None,
    mapping: MappingOption = None,
    service: ServiceOption = None,
    reason: ReasonOption = None,
    text: TextOption = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="End after N events", min=1)
    ] = None,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Show what happens, as it happens, until Ctrl-C

    Flows that start and end, refusals, HTTP requests, backends that go down and come up, revisions that are
    applied or fail, interfaces, and problems that begin and end. With a filter only what is of a flow is
    shown, and with --service alone also backends of that service. JSON is one object a line. When the daemon
    ends, people are told and see what happens once it is back; JSON and YAML end with exit code 6, since
    something may be missing.
    """
    from marchproxy.cli.watch import EVENTS, watch

    environment = environment_of(context)
    query = {
        "kind": kind,
        "source": source,
        "destination": destination,
        "port": port,
        "protocol": protocol,
        "mapping": mapping,
        "service": service,
        "reason": reason,
        "text": text,
    }
    return watch(environment, Control(environment), EVENTS, query, limit=limit, output=output)
