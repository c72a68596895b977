"""One run: every workload through every contender, in turns, round after round."""

from collections.abc import Callable, Sequence

from benchmarks import machine
from benchmarks.bed import Bed
from benchmarks.contenders import Contender, MarchProxy, MarchProxyXDP, Nftables, Routing
from benchmarks.gateways import MarchProxyGateway, NftablesGateway
from benchmarks.processor import busy_during
from benchmarks.proxies import HAProxy, Nginx
from benchmarks.results import Measurement, Run
from benchmarks.workloads import Workload
from marchproxy.model.errors import MarchproxyError

CONTENDERS: tuple[type[Contender], ...] = (
    *(Routing, MarchProxy, MarchProxyXDP, Nftables, HAProxy, Nginx),
    *(MarchProxyGateway, NftablesGateway),
)

type Report = Callable[[str], None]


def compare(
    bed: Bed,
    kinds: Sequence[type[Contender]],
    workloads: Sequence[Workload],
    *,
    rounds: int,
    seconds: int,
    report: Report,
) -> Run:
    """Measure. What fails is named in the result, and does not keep the others from being measured."""
    contenders = [kind(bed) for kind in kinds]
    run = Run(machine.facts(), {one.name: one.version() for one in contenders}, rounds, seconds)
    for number in range(rounds):
        for workload in workloads:
            for contender in turned(contenders, number):
                if contender.carries(workload.transport):
                    measure(run, number, workload, contender, report)
    return run


def turned[T](items: Sequence[T], number: int) -> list[T]:
    """Start with another one each round, so that nobody is always the first to be measured."""
    shift = number % len(items)
    return [*items[shift:], *items[:shift]]


def measure(run: Run, number: int, workload: Workload, contender: Contender, report: Report) -> None:
    """One figure, with the contender set up for it alone."""
    label = f"round {number + 1}/{run.rounds}  {workload.title}  {contender.title}"
    try:
        with contender.standing():
            contender.wait_ready()
            contender.bed.forget()
            value, busy = busy_during(lambda: workload.measure(contender.bed, contender.target, run.seconds))
    except MarchproxyError as error:
        run.failures.append(f"{label}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
        report(run.failures[-1])
        return
    each = busy / (value * run.seconds)
    run.measurements.append(Measurement(number, workload.name, contender.name, value, each))
    said = f"{value / workload.scale:.1f} {workload.unit}  {each * workload.work_scale:.1f} {workload.work}"
    report(f"{label}  {said}")
