"""Shows series: as tables in the terminal, and as tables and charts in docs/PERFORMANCE_SERIES.md."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.report import MORE_PAGE as PAGE
from benchmarks.report import write
from benchmarks.results import Spread
from benchmarks.series.live import Series
from benchmarks.series.packets import PacketSeries
from benchmarks.series.plot import Chart, Dot, Line, draw
from benchmarks.series.results import Point, Run, spread
from rig.servers import ROOT

PLOTS = ROOT / "docs" / "plots"
NANO = 1e-9

type AnySeries = Series | PacketSeries


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that points of a series say, and how it is shown."""

    suffix: str
    """Of the chart's file."""
    up: str
    of: str
    """Field of `Point`."""
    scale: float
    """What figures are multiplied by."""

    def spread(self, points: Sequence[Point]) -> Spread | None:
        """Over rounds, as shown."""
        return spread(getattr(point, self.of) * self.scale for point in points)


def measures(series: AnySeries) -> tuple[Measure, ...]:
    """The charts of a series."""
    if isinstance(series, PacketSeries):
        return (Measure("", series.up, "value", 1 / NANO),)
    return (
        Measure("", series.unit, "value", 1 / series.scale),
        Measure("-work", f"processors of the machine, {series.work}", "busy", series.work_scale),
    )


def chart(run: Run, series: AnySeries, measure: Measure) -> Chart:
    """What one measure of a series looks like."""
    steps = run.steps(series.name)
    lines = []
    for line in run.lines(series.name):
        dots = []
        for at, step in enumerate(steps):
            found = measure.spread(run.of(series.name, line, step))
            if found is not None:
                dots.append(Dot(at, found.median, found.low, found.high))
        lines.append(Line(line, tuple(dots)))
    return Chart(series.title, series.across, measure.up, tuple(f"{step:,}" for step in steps), tuple(lines))


def rows(run: Run, series: AnySeries) -> Iterator[tuple[str, ...]]:
    """Cells: the step, and for each line its figures."""
    lines = run.lines(series.name)
    yield series.across, *lines
    for step in run.steps(series.name):
        yield f"{step:,}", *(_cell(run.of(series.name, line, step), series) for line in lines)


def _cell(points: Sequence[Point], series: AnySeries) -> str:
    first, *more = measures(series)
    found = first.spread(points)
    if found is None:
        return "-"
    digits = 0 if isinstance(series, PacketSeries) else 1
    said = f"{found.median:,.{digits}f} ({found.low:,.{digits}f}-{found.high:,.{digits}f})"
    for measure in more:
        busy = measure.spread(points)
        if busy is not None:
            said += f"<br>{busy.median:.1f} {_shares(points)}"
    return said


def _shares(points: Sequence[Point]) -> str:
    """Of processor time: in soft interrupts, and in the programs that made the traffic."""
    total = sum(point.busy for point in points) or 1.0
    shares = (sum(getattr(point, of) for point in points) / total for of in ("softirq", "programs"))
    return "[{:.0f}, {:.0f} %]".format(*(100 * share for share in shares))


def show(run: Run, wanted: Sequence[AnySeries], console: Console) -> None:
    """Print the tables and what failed."""
    for series in wanted:
        if not run.steps(series.name):
            continue
        titles, *cells = rows(run, series)
        units = ", ".join(measure.up for measure in measures(series))
        table = Table(*titles, title=f"{series.title}: {units}", title_justify="left")
        for row in cells:
            table.add_row(*(cell.replace("<br>", "\n") for cell in row))
        console.print(table)
    for failure in run.failures:
        console.print(f"failed: {failure}", highlight=False, soft_wrap=True)


def markdown(run: Run, series: AnySeries) -> str:
    """The section of a series: charts, table, and what it was measured with."""
    titles, *cells = rows(run, series)
    lines = [
        f"![{series.title}: {measure.up}](plots/{series.name}{measure.suffix}.svg)"
        for measure in measures(series)
    ]
    lines += ["", "| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in cells]
    facts = run.machine
    live = isinstance(series, Series)
    how = f"{run.rounds} rounds" + (f" of {run.seconds:g} s" if live else "")
    lines += [
        "",
        f"{series.title}; {', '.join(measure.up for measure in measures(series))}. {how}, {facts['date']}, ",
    ]
    lines[-1] += f"kernel {facts['kernel']}, {facts['processor']}, load before: {facts['load before']}."
    lines += [f"* failed: {failure}" for failure in run.failures if failure.startswith(series.name)]
    return "\n".join(lines)


def publish(run: Run, wanted: Sequence[AnySeries], page: Path = PAGE, plots: Path = PLOTS) -> None:
    """Write charts, and the sections of all series that were measured."""
    plots.mkdir(exist_ok=True)
    for series in wanted:
        if not run.steps(series.name):
            continue
        for measure in measures(series):
            file = plots / f"{series.name}{measure.suffix}.svg"
            file.write_text(draw(chart(run, series, measure)))
        write(page, f"series-{series.name}", markdown(run, series))
