"""Histograms of times, drawn with rich: of its users none is in a hurry to start."""

from collections.abc import Iterable, Sequence

from rich.bar import Bar
from rich.console import Console
from rich.table import Table

from marchproxy.cli.context import Environment
from marchproxy.cli.table import Row

WIDTH = 100
"""Columns where stdout is no terminal."""
_BAR = 40
_UNITS = ((1_000_000, "s"), (1000, "ms"), (1, "µs"))


def show(environment: Environment, rows: Sequence[Row]) -> None:
    """A table for each service and kind of measurement; one line where there is nothing but a number."""
    plain = bool(environment.variables.get("NO_COLOR")) or not environment.stdout.isatty()
    console = Console(
        file=environment.stdout, width=environment.width or WIDTH, no_color=plain, highlight=False
    )
    if not rows:
        console.print("no connection was opened, and no request asked")
    for row in rows:
        title = f"{row['service']}  {row['what']}: {row['count']}"
        mean = f", mean {microseconds(row['mean_us'])}" if row["mean_us"] is not None else ""
        console.print(f"{title}{mean}", markup=False, style="bold")
        if row["histogram"]:
            console.print(_histogram(row["histogram"]))


def microseconds(count: float) -> str:
    """`850 µs`, `12 ms`, `1.5 s`."""
    size, unit = next(each for each in _UNITS if count >= each[0] or each[0] == 1)
    return f"{count / size:.3g} {unit}"


def _histogram(slots: Iterable[Row]) -> Table:
    """Rows without gaps: an empty one says as much as a full one."""
    held = {slot["from_us"]: slot for slot in slots}
    most = max(slot["count"] for slot in held.values())
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column(width=_BAR)
    begin, last = min(held), max(held)
    while begin <= last:
        end = max(2 * begin, 2)
        count = held[begin]["count"] if begin in held else 0
        span = f"{microseconds(begin)} to {microseconds(end)}"
        table.add_row(span, str(count), Bar(most, 0, count, width=_BAR))
        begin = end
    return table
