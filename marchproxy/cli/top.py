"""`marchproxy top`: who carries most right now."""

import gc
import json
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.options import TABLE, OutputOption
from marchproxy.cli.output import Output, serialise, show_rows
from marchproxy.cli.table import Columns, columns_of
from marchproxy.client.control import Control
from marchproxy.client.units import size
from marchproxy.client.words import cell
from marchproxy.model.errors import DaemonNotRunning

if TYPE_CHECKING:
    from rich.console import RenderableType

app = single()

_ROWS = 20
_AROUND = 4
"""Lines of a screen that are no rows."""
_INTERVAL = 2.0


class By(StrEnum):
    """What `--by` takes."""

    SERVICE = "service"
    SOURCE = "source"
    DESTINATION = "destination"
    MAPPING = "mapping"
    REASON = "reason"


class Sort(StrEnum):
    """What `--sort` takes."""

    RATE = "rate"
    PACKET_RATE = "packet-rate"
    BYTES = "bytes"
    PACKETS = "packets"
    FLOWS = "flows"


_ORDERS = {Sort.RATE: "bytes_per_s", Sort.PACKET_RATE: "packets_per_s"}
"""As the daemon has them, where it has other names."""
_COUNTED: Columns = {
    "PACKETS/S": lambda row: round(row["packets_per_s"]),
    "RATE": lambda row: size(round(row["bytes_per_s"])) + "/s",
    "PACKETS": "packets",
    "BYTES": lambda row: size(row["bytes"]),
}
_CARRIED: Columns = {"NAME": "name", "FLOWS": "flows", **_COUNTED}
_REFUSED: Columns = {"REASON": "name", "MAPPING": "mapping", **_COUNTED}
_DENYING: Columns = {"NAME": "name", **_COUNTED}
_DENIED: Columns = {name: _DENYING[name] for name in ("NAME", "PACKETS/S", "PACKETS")}
"""Who is refused: records of refusals do not tell bytes."""
_NAMES = frozenset({"NAME", "REASON", "MAPPING"})


@verb(
    app,
    "top",
    "marchproxy top",
    "marchproxy top --by source --sort packet-rate",
    "marchproxy top --by reason",
    "marchproxy top --denied --by source",
    "marchproxy top --by mapping --once --output json",
)
def top(
    context: typer.Context,
    by: Annotated[By, typer.Option("--by", help="Add up by")] = By.SERVICE,
    sort: Annotated[
        Sort | None, typer.Option("--sort", help="Most of it first; rate unless given, packets of refusals")
    ] = None,
    denied: Annotated[bool, typer.Option("--denied", help="Who, or what, is refused most")] = False,
    interval: Annotated[
        float | None,
        typer.Option("--interval", metavar="SECONDS", help="Look again after; 2 unless given", min=1),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="Show at most N; what fits unless given", min=1)
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print it once and end")] = False,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Show who carries most right now, and what is refused most

    Flows, packets and bytes are those of live flows, both ways together; rates also count flows that have
    ended meanwhile. With --denied it is about packets that were refused, since the daemon began; with
    --by reason, too, and with --by mapping, since the tables were made. A service counts on either side of
    a flow or a refusal. On a terminal the table is renewed until Ctrl-C; anywhere else, and in JSON and
    YAML, it is printed once. JSON with --interval is one object a line, until Ctrl-C.
    """
    gc.enable()
    environment = environment_of(context)
    chosen = sort or (Sort.PACKETS if denied or by is By.REASON else Sort.RATE)
    query = {"by": by.value, "sort": _ORDERS.get(chosen, chosen.value)} | ({"denied": "1"} if denied else {})
    look = _Look(Control(environment), query, limit)
    every = interval or _INTERVAL
    try:
        if output is Output.JSON and interval and not once:
            return _lines(environment, look, every)
        if once or output is not Output.TABLE or not environment.stdout.isatty():
            return _once(environment, look, output)
        return _live(environment, look, every)
    except KeyboardInterrupt:
        return ExitCode.DONE


class _Look:
    """One question, asked again and again."""

    def __init__(self, control: Control, query: Mapping[str, str], limit: int | None) -> None:
        self._control = control
        self._query = query
        self._limit = limit

    def __call__(self, fits: int = _ROWS) -> Any:
        found, _ = self._control.fetch("/v1/top", **self._query, limit=self._limit or fits)
        return found

    def measured(self) -> Any:
        """With rates: for the first who looks there are none before a second has passed."""
        found = self()
        while not found["seconds"]:
            time.sleep(1.05)
            found = self()
        return found


def _once(environment: Environment, look: _Look, output: Output) -> ExitCode:
    found = look.measured()
    if output is not Output.TABLE:
        environment.stdout.write(serialise(found, output))
        return ExitCode.DONE
    show_rows(environment, output, found["rows"], _columns(found))
    if found["total"] > len(found["rows"]):
        environment.note(f"these are {len(found['rows'])} of {found['total']}: --limit shows more")
    return ExitCode.DONE


def _lines(environment: Environment, look: _Look, interval: float) -> ExitCode:
    found = look.measured()
    while True:
        environment.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
        environment.stdout.flush()
        time.sleep(interval)
        found = look()


def _live(environment: Environment, look: _Look, interval: float) -> ExitCode:
    """Renewed in place until Ctrl-C. A daemon that has ended is waited for; without one it does not begin."""
    from rich.console import Console
    from rich.live import Live

    plain = bool(environment.variables.get("NO_COLOR"))
    console = Console(
        file=environment.stdout, width=environment.width, no_color=plain, highlight=False, markup=False
    )
    found, absent = look(_fitting(console.height)), ""
    with Live(
        _screen(found, absent, console.width), console=console, auto_refresh=False, screen=True
    ) as live:
        while True:
            # The first rates come as soon as there are any.
            time.sleep(interval if found["seconds"] else 1.05)
            try:
                found, absent = look(_fitting(console.height)), ""
            except DaemonNotRunning:
                absent = "the daemon does not answer: waiting for it"
            live.update(_screen(found, absent, console.width), refresh=True)


def _fitting(height: int) -> int:
    return max(1, height - _AROUND)


def _screen(found: Any, absent: str, width: int) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    since = f"over {found['seconds']:.1f} s" if found["seconds"] else "no rates yet"
    shown = f"{len(found['rows'])} of {found['total']}"
    head = Text(f"MarchProxy: who carries most, by {found['by']}, {shown}, {since}; Ctrl-C leaves", "bold")
    if found["by"] == By.REASON:
        head = Text(f"MarchProxy: what is refused most, {shown}, {since}; Ctrl-C leaves", "bold")
    elif found.get("denied"):
        head = Text(f"MarchProxy: refused most, by {found['by']}, {shown}, {since}; Ctrl-C leaves", "bold")
    table = Table(box=None, pad_edge=False, expand=False, padding=(0, 2, 0, 0))
    columns = _columns(found)
    rows = [
        [cell(row.get(source) if isinstance(source, str) else source(row)) for source in columns.values()]
        for row in found["rows"]
    ]
    for title, narrow in zip(columns, _widths(columns, rows, width), strict=True):
        justify: Literal["left", "right"] = "left" if title in _NAMES else "right"
        table.add_column(title, justify=justify, no_wrap=True, overflow="ellipsis", width=narrow)
    for values in rows:
        table.add_row(*map(Text, values))
    return Group(head, Text(absent, "red") if absent else Text(""), table)


def _widths(columns: Columns, rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Of each column: names share what numbers leave, whose ends say nothing without their beginning."""
    needed = [max(map(columns_of, column)) for column in zip(columns, *rows, strict=True)]
    names = sum(title in _NAMES for title in columns)
    numbers = sum(need for title, need in zip(columns, needed, strict=True) if title not in _NAMES)
    room = max(1, (width - numbers - 2 * len(columns)) // names)
    return [min(need, room) if title in _NAMES else need for title, need in zip(columns, needed, strict=True)]


def _columns(found: Any) -> Columns:
    if found["by"] == By.REASON:
        return _REFUSED
    if found.get("denied"):
        return _DENYING if found["by"] == By.MAPPING else _DENIED
    return _CARRIED
