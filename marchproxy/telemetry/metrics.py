"""Facts in Prometheus' text format. The data plane counts; nothing here keeps a number of its own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from marchproxy.model.reason import Reason

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


@dataclass(frozen=True, slots=True)
class Facts:
    """The daemon at the moment of a scrape."""

    version: str
    tier: str
    revision: int
    applied: float
    """Seconds since the epoch."""
    apply_seconds: float
    listeners: int
    counters: Mapping[Reason, tuple[int, int]]
    """Packets and bytes by reason."""
    denied: Sequence[tuple[Reason, str, int]]
    """Reason, mapping and packets of what was refused."""
    audited: Sequence[tuple[Reason, str, int]]
    """The same of what audit let through: first packets of flows."""
    limits: Mapping[str, tuple[int, int, int, int]]
    """Packets and bytes let through, packets and bytes dropped, by the limit's name."""
    tables: Mapping[str, tuple[int, int]]
    """Entries in use, and how many there may be."""
    interfaces: Mapping[str, str]
    """How each interface of the plan is attached; empty: not at all."""
    names: Mapping[str, int]
    """Addresses of each host name."""
    backends: Sequence[tuple[str, str, int, bool | None, bool]]
    """Service, address, port, whether it is up (None: not checked), whether it is drained."""
    certificates: Mapping[str, float]
    """When each that is used expires, in seconds since the epoch."""
    problems: Mapping[str, int]
    """How many, by component."""
    lost_events: int
    reloads: int
    failed_reloads: int


class _Snapshot(Collector):
    """One scrape's facts, as the exposition wants them."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        """Every metric of ours."""
        yield from self._policy()
        yield from self._traffic()
        yield from self._health()

    def _policy(self) -> Iterator[Metric]:
        facts = self._facts
        yield InfoMetricFamily(
            "marchproxy", "What runs here.", value={"version": facts.version, "tier": facts.tier}
        )
        yield GaugeMetricFamily(
            "marchproxy_revision", "Number of the revision that is carried out.", value=facts.revision
        )
        yield GaugeMetricFamily(
            "marchproxy_applied_timestamp_seconds", "When it was last applied.", value=facts.applied
        )
        yield GaugeMetricFamily("marchproxy_apply_seconds", "How long that took.", value=facts.apply_seconds)
        reloads = CounterMetricFamily("marchproxy_reloads", "Plans taken over or refused.", labels=["result"])
        reloads.add_metric(["applied"], facts.reloads)
        reloads.add_metric(["refused"], facts.failed_reloads)
        yield reloads
        yield GaugeMetricFamily("marchproxy_listeners", "Listeners of the plan.", value=facts.listeners)
        names = GaugeMetricFamily("marchproxy_name_addresses", "Addresses of a host name.", labels=["name"])
        for name, count in facts.names.items():
            names.add_metric([name], count)
        yield names

    def _traffic(self) -> Iterator[Metric]:
        packets = CounterMetricFamily(
            "marchproxy_packets", "Packets by what became of them.", labels=["reason"]
        )
        octets = CounterMetricFamily("marchproxy_bytes", "Bytes by what became of them.", labels=["reason"])
        # Every reason from the start: a counter that appears with its first packet shows no increase to 1.
        for reason in Reason:
            count, size = self._facts.counters.get(reason, (0, 0))
            packets.add_metric([reason.name], count)
            octets.add_metric([reason.name], size)
        yield packets
        yield octets
        yield _by_mapping(
            "marchproxy_denied_packets", "Refused packets by reason and mapping.", self._facts.denied
        )
        yield _by_mapping(
            "marchproxy_audited_packets",
            "First packets of flows that audit let through, by why they would have been refused.",
            self._facts.audited,
        )
        yield from self._limits()
        used = GaugeMetricFamily("marchproxy_table_entries", "Entries in use.", labels=["table"])
        limit = GaugeMetricFamily("marchproxy_table_limit", "Entries there may be.", labels=["table"])
        for table, (entries, most) in self._facts.tables.items():
            used.add_metric([table], entries)
            limit.add_metric([table], most)
        yield used
        yield limit
        yield CounterMetricFamily(
            "marchproxy_lost_events",
            "Events that nobody could be told, counted instead.",
            value=self._facts.lost_events,
        )

    def _limits(self) -> Iterator[Metric]:
        labels = ["limit", "result"]
        packets = CounterMetricFamily("marchproxy_limit_packets", "Packets, by limit.", labels=labels)
        octets = CounterMetricFamily("marchproxy_limit_bytes", "Bytes, by limit.", labels=labels)
        for name, counts in self._facts.limits.items():
            for metric, passed, dropped in ((packets, counts[0], counts[2]), (octets, counts[1], counts[3])):
                metric.add_metric([name, "passed"], passed)
                metric.add_metric([name, "dropped"], dropped)
        yield packets
        yield octets

    def _health(self) -> Iterator[Metric]:
        facts = self._facts
        yield GaugeMetricFamily(
            "marchproxy_healthy", "1: nothing is wrong.", value=0 if any(facts.problems.values()) else 1
        )
        problems = GaugeMetricFamily("marchproxy_problems", "What is wrong right now.", labels=["component"])
        for component, count in facts.problems.items():
            problems.add_metric([component], count)
        yield problems
        yield from self._backends()
        expiry = GaugeMetricFamily(
            "marchproxy_certificate_expiry_timestamp_seconds",
            "When a certificate that is used expires.",
            labels=["certificate"],
        )
        for certificate, expires in facts.certificates.items():
            expiry.add_metric([certificate], expires)
        yield expiry
        attached = GaugeMetricFamily(
            "marchproxy_interface_attached", "1: a program is attached.", labels=["interface", "as"]
        )
        for interface, how in facts.interfaces.items():
            attached.add_metric([interface, how], 1 if how else 0)
        yield attached

    def _backends(self) -> Iterator[Metric]:
        labels = ["service", "address", "port"]
        up = GaugeMetricFamily("marchproxy_backend_up", "1: checks find it healthy.", labels=labels)
        drained = GaugeMetricFamily(
            "marchproxy_backend_drained", "1: it keeps its flows and gets no new ones.", labels=labels
        )
        for service, address, port, is_up, is_drained in self._facts.backends:
            place = [service, address, str(port)]
            if is_up is not None:
                up.add_metric(place, is_up)
            drained.add_metric(place, is_drained)
        yield up
        yield drained


def _by_mapping(name: str, text: str, rows: Sequence[tuple[Reason, str, int]]) -> Metric:
    metric = CounterMetricFamily(name, text, labels=["reason", "mapping"])
    for reason, mapping, packets in rows:
        metric.add_metric([reason.name, mapping], packets)
    return metric


def render(facts: Facts) -> bytes:
    """The text of one scrape: our metrics, then the process's own (memory, processor time, open files)."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(facts))
    ProcessCollector(registry=registry)
    return generate_latest(registry)
