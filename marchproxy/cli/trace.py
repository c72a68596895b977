"""`marchproxy trace`: live questions to the kernel, through BCC."""

import gc
import json
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marchproxy.cli import intent
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode, warn
from marchproxy.cli.flowfilters import ServiceOption, option
from marchproxy.cli.framework import environment_of, noun, verb
from marchproxy.cli.options import TABLE, OutputOption
from marchproxy.cli.output import Output, show_rows, to_yaml
from marchproxy.cli.table import Columns, Row
from marchproxy.client.control import Control
from marchproxy.client.units import duration, parse_duration
from marchproxy.model.errors import DaemonNotRunning, InvalidValue, MarchproxyError, NotFound
from marchproxy.model.names import qualify

if TYPE_CHECKING:
    from marchproxy.dataplane.naming import AllServices
    from marchproxy.dataplane.trace.tracing import Tracing

app = noun("Ask the kernel live: latency, retransmits, drops")

MAX_DURATION = 86_400
_KNOWN_BACKENDS = 10_000
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp"}

DurationOption = Annotated[
    str, option("duration", "TIME", "Look for this long, such as 30s or 5m; Ctrl-C ends it sooner")
]
RateOption = Annotated[
    int,
    option("rate", "N", "Tell of at most N events a second with --output json", min=1, max=100_000),
]


def _end(row: Row, name: str) -> str:
    """`address:port (service)`, IPv6 in brackets."""
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
    services = _Services(environment, service)
    with _asked(environment, "latency", time, 1, services.backends()) as tracing:
        found = [row for row in tracing.documents() if row["kind"] == "latency"]
    rows = services.latencies(found, service)
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
    rate: RateOption = 1000,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Show which TCP segments are sent again, and by whom

    Segments that pass a second time were lost behind the appliance, or their acknowledgements were; packets
    that overtook each other look the same. Those of the appliance's own connections are told apart. With
    --output json each is an object as it happens, and totals follow. It takes root and BCC (apt install
    python3-bpfcc). What XDP forwards by itself is not seen.
    """
    return _events(context, "retransmits", time, service, rate, output, _RETRANSMITS)


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
    rate: RateOption = 1000,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Show where the kernel drops packets, and why

    By the kernel's own reason and function, in the appliance's network namespace. TC_INGRESS is what the
    appliance drops itself: flows --denied says why. With --output json each drop is an object as it happens,
    and totals follow. It takes root, BCC (apt install python3-bpfcc) and kernel 5.17.
    """
    return _events(context, "drops", time, service, rate, output, _DROPS)


def _events(
    context: typer.Context,
    question: str,
    time: str,
    service: str | None,
    rate: int,
    output: Output,
    columns: Columns,
) -> ExitCode:
    gc.enable()
    environment = environment_of(context)
    services = _Services(environment, service)
    totals: list[Row] = []
    untold = 0
    with _asked(environment, question, time, rate) as tracing:
        for document in tracing.documents():
            untold = document.get("untold", untold)
            row = services.complete(document) if "source" in document else {}
            if not row or not services.is_meant(row, service):
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
    environment: Environment, question: str, time: str, rate: int, backends: Iterable[tuple[str, int]] = ()
) -> "Iterator[Tracing]":
    from marchproxy.dataplane.trace.headers import namespace_number
    from marchproxy.dataplane.trace.tracing import PYTHON, Job, Question, Tracing

    seconds = parse_duration(time)
    if not 1 <= seconds <= MAX_DURATION:
        raise InvalidValue("duration", time, "a time from 1s to 1d")
    job = Job(
        question=Question(question),
        namespace=namespace_number(_daemon(environment)),
        duration=seconds,
        rate=rate,
        backends=tuple(backends),
        python=environment.variables.get("MARCHPROXY_BCC_PYTHON") or PYTHON,
    )
    with Tracing(job) as tracing:
        environment.note(f"looking for {duration(seconds)}; Ctrl-C ends it sooner")

        def end(_number: int, _frame: object) -> None:
            # A second Ctrl-C gives up on the totals, too.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            tracing.stop()

        before = signal.signal(signal.SIGINT, end)
        try:
            yield tracing
        finally:
            signal.signal(signal.SIGINT, before)


def _daemon(environment: Environment) -> int | str:
    """The process whose network namespace is the appliance's: the daemon, or this command where none runs."""
    try:
        return int(Control(environment).get("/v1/status")["pid"])
    except MarchproxyError:
        return "self"


class _Services:
    """What addresses are called: by the store, and by the daemon where host names are concerned."""

    def __init__(self, environment: Environment, wanted: str | None = None) -> None:
        """Raises `NotFound` where there is no service `wanted`."""
        self._environment = environment
        self._names = self._read()
        if wanted is not None and not any(_is_named(name, wanted) for name in self._ports):
            raise NotFound("service", wanted, hint="see: marchproxy service list")

    def backends(self) -> set[tuple[str, int]]:
        """Those that have flows now."""
        try:
            rows, _ = Control(self._environment).fetch("/v1/flows", protocol="tcp", limit=_KNOWN_BACKENDS)
        except DaemonNotRunning:
            return set()
        return {(row["backend"], row["backend_port"]) for row in rows}

    def complete(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """An event or total with the services of both ends."""
        row = dict(document)
        for name in ("source", "destination"):
            row[f"{name}_service"] = self._name(row[name], row[f"{name}_port"])
        row["protocol"] = _PROTOCOLS.get(row["protocol"], str(row["protocol"]))
        return row

    def is_meant(self, row: Row, service: str | None) -> bool:
        """Whether either end is in `service`."""
        return service is None or any(self._has(row[name], service) for name in ("source", "destination"))

    def latencies(self, found: Iterable[Row], service: str | None) -> list[dict[str, Any]]:
        """One row for each service and kind of measurement; backends without one stand for themselves."""
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for each in found:
            if service is not None and not self._has(each["backend"], service):
                continue
            name = service or self._name(each["backend"], each["port"]) or each["backend"]
            empty = {"service": name, "what": each["what"], "count": 0, "total_ns": 0, "slots": {}}
            row = rows.setdefault((name, each["what"]), empty)
            row["count"] += each["count"]
            row["total_ns"] += each["total_ns"]
            for slot, count in each["slots"].items():
                row["slots"][int(slot)] = row["slots"].get(int(slot), 0) + count
        return [_measured(row) for _, row in sorted(rows.items())]

    def _name(self, address: str, port: int) -> str:
        """The service with that address, if possible one of that port; empty for a stranger."""
        names = self._names.names(ip_address(address))
        return min(names, key=lambda name: (self._ports.get(name) != port, name), default="")

    def _has(self, address: str, service: str) -> bool:
        return any(_is_named(name, service) for name in self._names.names(ip_address(address)))

    def _read(self) -> "AllServices":
        from marchproxy.dataplane.naming import AllServices

        snapshot = intent.read(self._environment)
        self._ports = {
            qualify(cluster.name, service.name): service.port
            for cluster in snapshot.clusters
            for service in cluster.services
        }
        try:
            resolved = Control(self._environment).get("/v1/status")["names"]
        except MarchproxyError:
            resolved = {}
        return AllServices(
            lambda: snapshot, {name: list(map(ip_address, held)) for name, held in resolved.items()}
        )


def _is_named(name: str, text: str) -> bool:
    """`cluster/name` is meant by itself and by `name`."""
    return text in (name, name.partition("/")[2])


def _measured(row: dict[str, Any]) -> dict[str, Any]:
    """With its mean and its slots as ranges. Slot n holds 2^(n-1) to 2^n - 1 microseconds."""
    slots = row.pop("slots")
    total = row.pop("total_ns")
    row["mean_us"] = round(total / row["count"] / 1000, 1) if slots else None
    row["histogram"] = [
        {"from_us": 1 << slot - 1 if slot > 1 else 0, "to_us": (1 << slot) - 1, "count": slots[slot]}
        for slot in sorted(slots)
    ]
    return row
