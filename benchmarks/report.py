"""Shows a run: as tables in the terminal, and as the one in docs/PERFORMANCE.md."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.compare import CONTENDERS
from benchmarks.contenders import Contender, MarchProxy, Routing
from benchmarks.gateways import Gateway, MarchProxyGateway, NftablesGateway
from benchmarks.results import Run, Summary
from benchmarks.workloads import ALL, MORE, WORKLOADS, Workload
from rig import RigError
from rig.servers import ROOT

PAGE = ROOT / "docs" / "PERFORMANCE.md"
MORE_PAGE = ROOT / "docs" / "PERFORMANCE_SERIES.md"


def measured(run: Run) -> list[type[Contender]]:
    """Who took part, in the order of the columns."""
    return [kind for kind in CONTENDERS if kind.name in run.contenders]


def cell(workload: Workload, summary: Summary | None) -> tuple[str, str]:
    """Median with its spread, and the ratio to plain routing with its spread."""
    return ("-", "") if summary is None else cell_of(summary, workload.scale)


def cell_of(summary: Summary, scale: float) -> tuple[str, str]:
    """The same of a workload with this scale."""
    value, ratio = summary.value, summary.ratio
    low, high = value.low / scale, value.high / scale
    figure = f"{value.median / scale:.1f} ({low:.1f}-{high:.1f})"
    return figure, f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"


def work(workload: Workload, summary: Summary | None) -> tuple[str, str]:
    """Median processor time of a piece of work with its spread, and the median ratio to plain routing."""
    if summary is None:
        return "-", ""
    median, low, high = (
        value * workload.work_scale for value in (summary.busy.median, summary.busy.low, summary.busy.high)
    )
    return f"{median:.1f} ({low:.1f}-{high:.1f})", f"{summary.busy_ratio.median:.2f}"


def show(run: Run, console: Console) -> None:
    """Print the table, whether the goals were met, and what failed."""
    for workload in ALL:
        if not any(one.workload == workload.name for one in run.measurements):
            continue
        table = Table(title=f"{workload.title}, {workload.unit}", title_justify="left", width=78)
        table.add_column("through")
        for title in ("median (min-max)", "to routing\n(min-max)", f"{workload.work}\n(to routing)"):
            table.add_column(title, justify="right")
        for kind in measured(run):
            summary = run.summary(workload.name, kind.name)
            busy, busy_ratio = work(workload, summary)
            table.add_row(
                kind.title,
                *cell(workload, summary),
                f"{busy.partition(' ')[0]} ({busy_ratio})" if summary else "-",
                style="bold" if issubclass(kind, MarchProxy | MarchProxyGateway) else "",
            )
        console.print(table)
    for line in (*goals(run), *(f"failed: {failure}" for failure in run.failures)):
        console.print(line, highlight=False, soft_wrap=True)


def goals(run: Run) -> Iterator[str]:
    """How MarchProxy's TC tier did against its goal and the best of the others, a line for each workload."""
    proxies = [kind for kind in measured(run) if not issubclass(kind, Gateway)]
    rivals = [kind for kind in proxies if kind is not Routing and not issubclass(kind, MarchProxy)]
    for workload in ALL:
        mine = run.summary(workload.name, MarchProxy.name)
        if mine is None:
            continue
        others = [
            (found.ratio.median, kind.title)
            for kind in rivals
            if (found := run.summary(workload.name, kind.name)) is not None
        ]
        reached = mine.ratio.median
        line = f"{workload.title}: {reached:.2f} of routing, goal {workload.goal:.2f} "
        line += "met" if reached >= workload.goal else "MISSED"
        if others:
            best, title = max(others)
            line += f"; {'ahead of' if reached > best else 'BEHIND'} {title} ({best:.2f})"
        yield line
    yield from gateways(run)


def gateways(run: Run) -> Iterator[str]:
    """MarchProxy as a gateway against nftables with the same policy, a line for each workload."""
    for workload in ALL:
        mine = run.summary(workload.name, MarchProxyGateway.name)
        other = run.summary(workload.name, NftablesGateway.name)
        if mine is not None and other is not None:
            ratio = mine.ratio.median / other.ratio.median
            yield f"{workload.title}, gateway: {ratio:.2f} of nftables with the same policy, goal 1.00 " + (
                "met" if ratio >= 1 else "MISSED"
            )
            work = other.busy.median / mine.busy.median
            yield f"{workload.title}, gateway: {work:.2f} of nftables' work for the same processor time, " + (
                f"goal 1.00 {'met' if work >= 1 else 'MISSED'}, aim 1.50"
            )


def publish(run: Run) -> None:
    """Put the tables into their pages; what was not measured at all keeps the one that it has."""
    for page, section, workloads in ((PAGE, "bench", WORKLOADS), (MORE_PAGE, "bench-more", MORE)):
        names = {workload.name for workload in workloads}
        if any(one.workload in names for one in run.measurements):
            write(page, section, markdown(run, workloads))


def markdown(run: Run, workloads: Sequence[Workload] = WORKLOADS) -> str:
    """The table, what it was measured with, and what could not be measured."""
    kinds = measured(run)
    lines = ["| | " + " | ".join(kind.title for kind in kinds) + " |", "|---|" + "---|" * len(kinds)]
    for workload in workloads:
        cells = [
            "<br>".join(filter(None, cell(workload, run.summary(workload.name, kind.name)))) for kind in kinds
        ]
        lines.append(f"| {workload.title}, {workload.unit} | " + " | ".join(cells) + " |")
    lines += ["", "Processor time of the whole machine, client and server included, for a piece of work:", ""]
    lines += ["| | " + " | ".join(kind.title for kind in kinds) + " |", "|---|" + "---|" * len(kinds)]
    for workload in workloads:
        cells = [
            "<br>".join(filter(None, work(workload, run.summary(workload.name, kind.name)))) for kind in kinds
        ]
        lines.append(f"| {workload.title}, {workload.work} | " + " | ".join(cells) + " |")
    lines += ["", f"{run.rounds} rounds of {run.seconds} s for each figure."]
    lines += [f"* {name}: {value}" for name, value in run.machine.items()]
    lines += versions(run)
    lines += [f"* failed: {failure}" for failure in run.failures]
    return "\n".join(lines)


def write(page: Path, section: str, text: str) -> None:
    """Replace what stands between the markers of `section` in a page; `RigError` where it has none."""
    opening, closing = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    before, begin, rest = page.read_text().partition(opening)
    _old, end, after = rest.partition(closing)
    if not begin or not end:
        raise RigError(
            f"{page.name} has no place for {section}", hint=f"it goes between {opening} and {closing}"
        )
    page.write_text(f"{before}{opening}\n{text}\n{closing}{after}")


def versions(run: Run) -> list[str]:
    """A line for each contender, with what it says about itself."""
    return [
        f"* {name}: {', '.join(version.splitlines())}"
        for name, version in run.contenders.items()
        if name != Routing.name
    ]
