"""All sinks of the appliance: which there are to be, and who gets which record."""

import asyncio
import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from marchproxy.model.collector import Collector
from marchproxy.model.entities import ClusterFields
from marchproxy.telemetry.logs.records import DEFAULT_FOLDER, FlowRecord, Happening, LogClass, Record
from marchproxy.telemetry.logs.sink import Sink, SinkState, free

if TYPE_CHECKING:
    from marchproxy.telemetry.logs.ipfix import IpfixEncoder
    from marchproxy.telemetry.logs.rfc5424 import SyslogEncoder

log = logging.getLogger(__name__)


_FLOWS = frozenset({LogClass.NETFLOW})
_REQUESTS = frozenset({LogClass.ACCESS})


@dataclass(frozen=True, slots=True)
class Target:
    """A sink that there is to be. One that stays equal goes on as it is."""

    cluster: str
    kind: str
    """`syslog`, `ipfix`, `http` or `file`."""
    to: str
    classes: frozenset[LogClass]
    enterprise: int
    collector: Collector | None = None
    certificates: str = ""
    token: bytes | None = field(default=None, repr=False)

    @property
    def happenings(self) -> frozenset[Happening]:
        """What it has to be told."""
        if self.kind == "ipfix":
            return frozenset({Happening.END, Happening.DENIED})
        return frozenset(Happening) if self.classes & {LogClass.AUTH, LogClass.NETFLOW} else frozenset()


def targets(
    name: str, cluster: ClusterFields, enterprise: int, token: bytes | None, folder: Path = DEFAULT_FOLDER
) -> list[Target]:
    """What a cluster's fields ask for; files are in `folder`."""
    switches = {
        LogClass.AUTH: cluster.log_auth,
        LogClass.NETFLOW: cluster.log_netflow,
        LogClass.ACCESS: cluster.log_access,
        LogClass.DEBUG: cluster.log_debug,
    }
    classes = frozenset(each for each, on in switches.items() if on)
    found = []
    if cluster.syslog and classes:
        to, certificates = str(cluster.syslog), cluster.syslog_ca
        found.append(Target(name, "syslog", to, classes, enterprise, cluster.syslog, certificates))
    if cluster.ipfix:
        found.append(Target(name, "ipfix", str(cluster.ipfix), _FLOWS, enterprise, cluster.ipfix))
    if cluster.log_http:
        every = classes or _FLOWS
        found.append(Target(name, "http", cluster.log_http, every, 0, token=token))
    if cluster.access_log:
        found.append(Target(name, "file", str(folder / f"access-{name}.jsonl"), _REQUESTS, 0))
    return found


class Exports:
    """The sinks that run. To be used in the loop's thread."""

    def __init__(self, version: str, spend: Callable[[float], None] = free) -> None:
        """`spend` is told what sinks cost, in seconds of a processor."""
        self._version = version
        self._spend = spend
        self._sinks: dict[Target, Sink] = {}
        self._by_cluster: dict[str, list[tuple[frozenset[Happening], Sink]]] = {}
        self._gone: dict[tuple[str, str], tuple[int, Mapping[str, int]]] = {}
        """What sinks that are no more have sent and lost, by cluster and kind: counters never go back."""
        self._closing: dict[asyncio.Task[None], Sink] = {}
        """Those that deliver what they hold, and then are no more."""

    @property
    def happenings(self) -> frozenset[Happening]:
        """What somebody wants to be told."""
        return frozenset[Happening]().union(*(target.happenings for target in self._sinks))

    @property
    def wants_requests(self) -> bool:
        """Whether somebody takes HTTP requests."""
        return any(LogClass.ACCESS in target.classes for target in self._sinks)

    def wants_debug(self, cluster: str) -> bool:
        """Whether somebody takes messages about this cluster."""
        return any(target.cluster == cluster and LogClass.DEBUG in target.classes for target in self._sinks)

    def configure(self, wanted: Sequence[Target]) -> None:
        """Have these sinks and no others. Those that go deliver what they hold first."""
        for target in [each for each in self._sinks if each not in wanted]:
            sink = self._sinks.pop(target)
            self._closing[asyncio.create_task(self._retire(sink), name="logs")] = sink
        for target in wanted:
            if target not in self._sinks:
                self._sinks[target] = self._open(target)
        self._by_cluster = {}
        for target, sink in self._sinks.items():
            self._by_cluster.setdefault(target.cluster, []).append((target.happenings, sink))

    def offer(self, record: Record) -> None:
        """Bring a record to whoever of its cluster takes it."""
        for happenings, sink in self._by_cluster.get(record.cluster, ()):
            told = not isinstance(record, FlowRecord) or record.happening in happenings
            if told and not sink.classes.isdisjoint(record.classes):
                sink.offer(record)

    def states(self) -> list[SinkState]:
        """How each sink is, with what earlier ones of its kind have counted, and those that close count."""
        return [self._with_others(sink.state()) for sink in self._sinks.values()]

    def problems(self) -> list[str]:
        """Whose records do not arrive."""
        return [
            f"{sink.kind} of cluster {sink.cluster}: {sink.problem}"
            for sink in self._sinks.values()
            if sink.problem
        ]

    async def close(self) -> None:
        """Deliver what waits, as far as it can be, and end."""
        self.configure(())
        if self._closing:
            await asyncio.wait(self._closing)

    def _open(self, target: Target) -> Sink:
        """What speaks to the other end is imported only where there is one."""
        if target.kind == "file":
            from marchproxy.telemetry.logs.files import JsonFile

            file = JsonFile(Path(target.to))
            return Sink(target.cluster, target.kind, target.to, target.classes, file, self._spend)
        if target.collector is None:
            from marchproxy.telemetry.logs.http import HttpBatches

            batches = HttpBatches(target.to, self._version, target.token)
            return Sink(target.cluster, target.kind, batches.shown, target.classes, batches, self._spend)
        from marchproxy.telemetry.logs.channels import Connection, Datagrams

        sort = target.cluster, target.kind, target.to, target.classes
        encoder = _encoder(target, target.collector)
        if target.collector.transport == "udp":
            return Sink(*sort, Datagrams(target.collector, encoder), self._spend)
        return Sink(*sort, Connection(target.collector, encoder, target.certificates), self._spend)

    async def _retire(self, sink: Sink) -> None:
        state = await sink.close()
        # In one step: whoever asks finds it here or there.
        task = asyncio.current_task()
        if task is not None:
            self._closing.pop(task, None)
        sent, lost = self._gone.get((state.cluster, state.kind), (0, {}))
        self._gone[state.cluster, state.kind] = sent + state.sent, _added(lost, state.lost)
        if state.lost["unsent"]:
            what = f"{state.kind} of cluster {state.cluster} to {state.target}"
            log.warning("%s ends: %d records were not sent", what, state.lost["unsent"])

    def _with_others(self, state: SinkState) -> SinkState:
        sent, lost = self._gone.get((state.cluster, state.kind), (0, {}))
        sent, lost, waiting = state.sent + sent, _added(lost, state.lost), state.waiting
        for sink in self._closing.values():
            if (sink.cluster, sink.kind) == (state.cluster, state.kind):
                other = sink.state()
                sent, lost, waiting = sent + other.sent, _added(lost, other.lost), waiting + other.waiting
        return SinkState(state.cluster, state.kind, state.target, sent, lost, waiting, state.problem)


def _added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {why: one.get(why, 0) + other.get(why, 0) for why in one.keys() | other.keys()}


def _encoder(target: Target, collector: Collector) -> "SyslogEncoder | IpfixEncoder":
    datagrams = collector.transport == "udp"
    if target.kind == "syslog":
        from marchproxy.telemetry.logs.rfc5424 import SyslogEncoder

        return SyslogEncoder(target.classes, target.enterprise, counted=not datagrams)
    from marchproxy.telemetry.logs.ipfix import IpfixEncoder

    # Collectors tell exporters apart by address and domain: two clusters of one appliance must differ.
    return IpfixEncoder(zlib.crc32(target.cluster.encode()) or 1, target.enterprise, datagrams=datagrams)
