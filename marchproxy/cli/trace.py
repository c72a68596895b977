"""`marchproxy trace`: live questions to the kernel, through BCC."""

import gc
import json
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode, WrongUsage, warn
from marchproxy.cli.flowfilters import ServiceOption, option
from marchproxy.cli.framework import environment_of, noun, verb
from marchproxy.cli.options import TABLE, OutputOption
from marchproxy.cli.output import Output, show_rows, to_yaml
from marchproxy.cli.table import Columns, Row
from marchproxy.cli.tracedservices import TracedServices
from marchproxy.client.units import duration, parse_duration
from marchproxy.model.errors import InvalidValue

app = noun("Ask the kernel live: latency, retransmits, drops")

MAX_DURATION = 86_400

DurationOption = Annotated[
    str, option("duration", "TIME", "Look for this long, such as 30s or 5m; Ctrl-C ends it sooner")
]
AllOption = Annotated[
    bool, typer.Option("--all", help="Everything in the network namespace, also what is not the appliance's")
]
RateOption = Annotated[
    int,
    option("rate", "N", "Tell of at most N events a second with --output json", min=1, max=100_000),
]


def _end(row: Row, name: str) -> str:
    """`address:port (service)`, IPv6 in brackets."""
    if row[name] is None:
        return "unknown"
    address, port, service = row[name], row[f"{name}_port"], row[f"{name}_service"]
    place = f"[{address}]" if ":" in address and port else address
    return place + (f":{port}" if port else "") + (f" ({service})" if service else "")


_RETRANSMITS: Columns = {
    "COUNT": "count",
    "SENDER": lambda row: "appliance" if row["sender"] == "own" else "passing",
    "SOURCE": lambda row: _end(row, "source"),
    "DESTINATION": lambda row: _end(row, "destination"),
}
_DROPS: Columns = {
    "COUNT": "count",
    "REASON": "reason",
    "FUNCTION": "function",
    "INTERFACE": "interface",
    "PROTOCOL": "protocol",
    "SOURCE": lambda row: _end(row, "source"),
    "DESTINATION": lambda row: _end(row, "destination"),
}


@verb(
    app,
    "latency",
    "sudo marchproxy trace latency",
    "sudo marchproxy trace latency --service shop --duration 1m",
    "sudo marchproxy trace latency --output json | jq 'select(.what == \"refused\")'",
)
def latency(
    context: typer.Context,
    time: DurationOption = "10s",
    service: ServiceOption = None,
    everything: AllOption = False,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Show how long backends take to connect and to answer

    Measured from where the appliance sends towards a backend to where that answers: from SYN to SYN-ACK
    (connect), and from the last request to the first byte of its answer (request). Backends that refuse, and
    connections that nobody answered, are counted. It takes root and BCC (apt install python3-bpfcc). On
    interfaces in an XDP mode only what XDP leaves to TC is seen, connects among it.
    """
    from marchproxy.cli.histogram import show

    environment = environment_of(context)
    services = TracedServices(environment, service)
    with _asked(services, "latency", time, 1, everything) as documents:
        found = [dict(row) for row in documents if row["kind"] == "latency"]
    rows = services.latencies(found)
    if output is Output.TABLE:
        show(environment, rows)
    else:
        _tell(environment, rows, output)
    return ExitCode.DONE


@verb(
    app,
    "retransmits",
    "sudo marchproxy trace retransmits --duration 30s",
    "sudo marchproxy trace retransmits --service shop --output json",
)
def retransmits(
    context: typer.Context,
    time: DurationOption = "10s",
    service: ServiceOption = None,
    everything: AllOption = False,
    rate: RateOption = 1000,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Show which TCP segments are sent again, and by whom

    Segments that pass a second time were lost behind the appliance, or their acknowledgements were; packets
    that overtook each other look the same. Those of the appliance's own connections are told apart. With
    --output json each is an object as it happens, and totals follow. It takes root and BCC (apt install
    python3-bpfcc). What XDP forwards by itself is not seen.
    """
    return _events(context, "retransmits", time, service, everything, rate, output, _RETRANSMITS)


@verb(
    app,
    "drops",
    "sudo marchproxy trace drops",
    "sudo marchproxy trace drops --service shop --duration 1m --output json",
)
def drops(
    context: typer.Context,
    time: DurationOption = "10s",
    service: ServiceOption = None,
    everything: AllOption = False,
    rate: RateOption = 1000,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Show where the kernel drops packets, and why

    By the kernel's own reason and function. TC_INGRESS is what the appliance drops itself: flows --denied
    says why. What is not IP has no addresses, and is shown where it came by an interface of the appliance.
    With --output json each drop is an object as it happens, and totals follow. It takes root, BCC (apt
    install python3-bpfcc) and kernel 5.17.
    """
    return _events(context, "drops", time, service, everything, rate, output, _DROPS)


def _events(
    context: typer.Context,
    question: str,
    time: str,
    service: str | None,
    everything: bool,
    rate: int,
    output: Output,
    columns: Columns,
) -> ExitCode:
    gc.enable()
    environment = environment_of(context)
    services = TracedServices(environment, service)
    totals: list[Row] = []
    untold = 0
    with _asked(services, question, time, rate, everything) as documents:
        for document in documents:
            untold = document.get("untold", untold)
            row = services.complete(document) if "source" in document else {}
            if not row or not services.is_meant(row):
                continue
            if document["kind"] == "total":
                totals.append(row)
            elif output is not Output.TABLE:
                _tell(environment, [row], output)
    totals.sort(key=lambda row: row["count"], reverse=True)
    if output is Output.TABLE:
        show_rows(environment, output, totals, columns)
    else:
        _tell(environment, totals, output)
    if untold and output is not Output.TABLE:
        warn(environment, f"{untold} events were faster than --rate; the totals have them")
    return ExitCode.DONE


def _tell(environment: Environment, rows: Iterable[Row], output: Output) -> None:
    for row in rows:
        text = (
            "---\n" + to_yaml(dict(row))
            if output is Output.YAML
            else json.dumps(row, ensure_ascii=False) + "\n"
        )
        environment.stdout.write(text)
        environment.stdout.flush()


@contextmanager
def _asked(
    services: TracedServices, question: str, time: str, rate: int, everything: bool
) -> Iterator[Iterable[Mapping[str, Any]]]:
    from marchproxy.dataplane.trace.headers import namespace_number
    from marchproxy.dataplane.trace.tracing import PYTHON, Job, Question, Tracing

    environment = services.environment
    seconds = parse_duration(time)
    if not 1 <= seconds <= MAX_DURATION:
        raise InvalidValue("duration", time, "a time from 1s to 1d")
    if everything and services.wanted:
        raise WrongUsage("--all and --service exclude each other")
    backends = services.backends()
    job = Job(
        question=Question(question),
        namespace=namespace_number(services.daemon or "self"),
        duration=seconds,
        rate=rate,
        scope=None if everything else services.scope(backends),
        backends=tuple(backends),
        python=environment.variables.get("MARCHPROXY_BCC_PYTHON") or PYTHON,
    )
    with Tracing(job) as tracing:

        def end(_number: int, _frame: object) -> None:
            # A second Ctrl-C gives up on the totals, too.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            tracing.stop()

        before = signal.signal(signal.SIGINT, end)
        try:
            yield _announced(environment, tracing.documents(), seconds)
        finally:
            signal.signal(signal.SIGINT, before)


def _announced(
    environment: Environment, documents: Iterable[Mapping[str, Any]], seconds: int
) -> Iterator[Mapping[str, Any]]:
    """The same; says when it begins to look, for compiling takes a second or more."""
    for document in documents:
        if document["kind"] == "ready":
            environment.note(f"looking for {duration(seconds)}; Ctrl-C ends it sooner")
        yield document
