"""Facts in Prometheus' text format. The data plane counts; nothing here keeps a number of its own.

docs/METRICS.md lists every metric, and a test compares the two.
"""

import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from marchproxy.model.reason import Reason
from marchproxy.telemetry.facts import BackendFact, CarriedFact, Facts, Refused
from marchproxy.telemetry.seats import OTHER, Seats

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class _Snapshot(Collector):
    """One scrape's facts, as the exposition wants them."""

    def __init__(self, facts: Facts, seats: Seats) -> None:
        self._facts = facts
        self._seats = seats

    def collect(self) -> Iterator[Metric]:
        """Every metric of ours."""
        yield from self._policy()
        yield from self._traffic()
        yield from self._carried("mapping", "{} carried by mapping.", self._facts.by_mapping)
        yield from self._carried("service", "{} carried by service and its side.", self._facts.by_service)
        yield from self._limits()
        yield from self._tables()
        yield from self._interfaces()
        yield from self._names()
        yield from self._health()
        yield from self._backends()
        yield from self._requests()
        yield from self._logs()

    def _policy(self) -> Iterator[Metric]:
        facts = self._facts
        build = GaugeMetricFamily(
            "marchproxy_build_info", "Always 1: what runs here.", labels=["version", "python", "tier"]
        )
        build.add_metric([facts.version, platform.python_version(), facts.tier], 1)
        yield build
        yield GaugeMetricFamily(
            "marchproxy_revision", "Number of the revision that is carried out.", value=facts.revision
        )
        yield GaugeMetricFamily(
            "marchproxy_applied_timestamp_seconds", "When it was last applied.", value=facts.applied
        )
        yield GaugeMetricFamily("marchproxy_apply_seconds", "How long that took.", value=facts.apply_seconds)
        yield GaugeMetricFamily(
            "marchproxy_trial_remaining_seconds",
            "Until the revision goes back unless it is confirmed; 0: it is not on trial.",
            value=facts.trial_seconds,
        )
        reloads = CounterMetricFamily("marchproxy_reloads", "Plans taken over or refused.", labels=["result"])
        reloads.add_metric(["applied"], facts.reloads)
        reloads.add_metric(["refused"], facts.failed_reloads)
        yield reloads
        yield GaugeMetricFamily("marchproxy_listeners", "Listeners of the plan.", value=facts.listeners)

    def _traffic(self) -> Iterator[Metric]:
        labels = ["reason", "by"]
        packets = CounterMetricFamily(
            "marchproxy_packets", "Packets by what became of them and who counted them.", labels=labels
        )
        octets = CounterMetricFamily("marchproxy_bytes", "Bytes, likewise.", labels=labels)
        for by, counters in self._facts.counters.items():
            # Every reason from the start: a counter that comes with its first packet shows no increase to 1.
            for reason in Reason:
                count, size = counters.get(reason, (0, 0))
                packets.add_metric([reason.name, by], count)
                octets.add_metric([reason.name, by], size)
        yield packets
        yield octets
        yield from self._refused("denied", "Refused {} by reason and mapping.", self._facts.denied)
        yield from self._refused(
            "audited",
            "First {} of flows that audit let through, by why they would have been refused.",
            self._facts.audited,
        )
        yield CounterMetricFamily(
            "marchproxy_learned_missed",
            "Flows that audit let through, and that there was no room for in what is learned.",
            value=self._facts.missed,
        )
        yield CounterMetricFamily(
            "marchproxy_lost_events",
            "Events that nobody could be told, counted instead.",
            value=self._facts.lost_events,
        )

    def _refused(self, what: str, text: str, rows: Sequence[Refused]) -> Iterator[Metric]:
        packets: Counter[tuple[str, str]] = Counter()
        octets: Counter[tuple[str, str]] = Counter()
        for row in rows:
            key = row.reason.name, self._seats.seat(what, row.mapping)
            packets[key] += row.packets
            octets[key] += row.bytes
        for unit, counts in (("packets", packets), ("bytes", octets)):
            metric = CounterMetricFamily(
                f"marchproxy_{what}_{unit}", text.format(unit), labels=["reason", "mapping"]
            )
            for labels, count in counts.items():
                metric.add_metric(labels, count)
            yield metric

    def _carried(self, what: str, text: str, rows: Sequence[CarriedFact]) -> Iterator[Metric]:
        flows: Counter[tuple[str, ...]] = Counter()
        counts: dict[str, Counter[tuple[str, ...]]] = {"packets": Counter(), "bytes": Counter()}
        for row in rows:
            side = (row.side,) if row.side else ()
            key = self._seats.seat(f"carried {what}", row.name), *side, row.tier
            flows[key] += row.flows
            for direction, (packets, octets) in (("sent", row.sent), ("received", row.received)):
                counts["packets"][*key, direction] += packets
                counts["bytes"][*key, direction] += octets
        labels = ["service", "side", "tier"] if what == "service" else ["mapping", "tier"]
        yield _counter(f"marchproxy_{what}_flows", text.format("Flows"), labels, flows)
        for unit, count in counts.items():
            name, help = f"marchproxy_{what}_{unit}", text.format(unit.capitalize())
            yield _counter(name, help, [*labels, "direction"], count)

    def _limits(self) -> Iterator[Metric]:
        counts: dict[tuple[str, str], tuple[int, int]] = {}
        for name, (packets, octets, dropped_packets, dropped_octets) in self._facts.limits.items():
            seat = self._seats.seat("limit", name)
            for result, count, size in (
                ("passed", packets, octets),
                ("dropped", dropped_packets, dropped_octets),
            ):
                before = counts.get((seat, result), (0, 0))
                counts[seat, result] = before[0] + count, before[1] + size
        labels = ["limit", "result"]
        of_packets = CounterMetricFamily("marchproxy_limit_packets", "Packets, by limit.", labels=labels)
        of_octets = CounterMetricFamily("marchproxy_limit_bytes", "Bytes, by limit.", labels=labels)
        for key, (count, size) in counts.items():
            of_packets.add_metric(key, count)
            of_octets.add_metric(key, size)
        yield of_packets
        yield of_octets

    def _tables(self) -> Iterator[Metric]:
        used = GaugeMetricFamily("marchproxy_table_entries", "Entries in use.", labels=["table"])
        limit = GaugeMetricFamily("marchproxy_table_limit", "Entries there may be.", labels=["table"])
        for table, (entries, most) in self._facts.tables.items():
            used.add_metric([table], entries)
            limit.add_metric([table], most)
        yield used
        yield limit

    def _interfaces(self) -> Iterator[Metric]:
        attached = GaugeMetricFamily(
            "marchproxy_interface_attached", "1: a program is attached.", labels=["interface", "role", "as"]
        )
        for interface, (role, how) in self._facts.interfaces.items():
            attached.add_metric([interface, role, how], 1 if how else 0)
        yield attached
        names = ("packets", "bytes", "errors", "dropped")
        metrics = {
            name: CounterMetricFamily(
                f"marchproxy_interface_{name}",
                f"{name.capitalize()} of an interface, as the kernel counts them for the device.",
                labels=["interface", "direction"],
            )
            for name in names
        }
        for interface, device in self._facts.devices.items():
            for direction, counts in (
                ("received", (*device.received, device.received_errors, device.received_dropped)),
                ("sent", (*device.sent, device.sent_errors, device.sent_dropped)),
            ):
                for name, count in zip(names, counts, strict=True):
                    metrics[name].add_metric([interface, direction], count)
        yield from metrics.values()

    def _names(self) -> Iterator[Metric]:
        addresses = GaugeMetricFamily(
            "marchproxy_name_addresses", "Addresses of a host name.", labels=["name"]
        )
        states: Counter[str] = Counter(dict.fromkeys(("resolved", "failing", "waiting", "learning"), 0))
        held: Counter[str] = Counter()
        beyond: Counter[str] = Counter()
        for name, (count, state, lost) in self._facts.names.items():
            states[state] += 1
            held[self._seats.seat("name", name)] += count
            beyond[self._seats.seat("name", name)] += lost
        for name, count in held.items():
            addresses.add_metric([name], count)
        yield addresses
        unlearned = GaugeMetricFamily(
            "marchproxy_name_unlearned",
            "Addresses of a host name that there was no room for.",
            labels=["name"],
        )
        for name, count in beyond.items():
            unlearned.add_metric([name], count)
        yield unlearned
        by_state = GaugeMetricFamily("marchproxy_names", "Host names by state.", labels=["state"])
        for state, count in states.items():
            by_state.add_metric([state], count)
        yield by_state
        questions = CounterMetricFamily(
            "marchproxy_dns_questions", "What clients asked the DNS listeners.", labels=["outcome"]
        )
        for outcome, count in self._facts.questions.items():
            questions.add_metric([outcome], count)
        yield questions

    def _health(self) -> Iterator[Metric]:
        facts = self._facts
        yield GaugeMetricFamily(
            "marchproxy_healthy", "1: nothing is wrong.", value=0 if any(facts.problems.values()) else 1
        )
        problems = GaugeMetricFamily("marchproxy_problems", "What is wrong right now.", labels=["component"])
        for component, count in facts.problems.items():
            problems.add_metric([component], count)
        yield problems
        expiry = GaugeMetricFamily(
            "marchproxy_certificate_expiry_timestamp_seconds",
            "When a certificate that is used expires; of all that have no label of their own, the first.",
            labels=["certificate"],
        )
        soonest: dict[str, float] = {}
        for name, expires in sorted(facts.certificates.items(), key=lambda item: item[1]):
            soonest.setdefault(self._seats.seat("certificate", name), expires)
        for name, expires in soonest.items():
            expiry.add_metric([name], expires)
        yield expiry

    def _backends(self) -> Iterator[Metric]:
        """Each by itself as far as there are seats; all of them by state."""
        labels = ["service", "address", "port"]
        up = GaugeMetricFamily("marchproxy_backend_up", "1: checks find it healthy.", labels=labels)
        drained = GaugeMetricFamily(
            "marchproxy_backend_drained", "1: it keeps its flows and gets no new ones.", labels=labels
        )
        states: Counter[tuple[str, str]] = Counter()
        for backend in self._facts.backends:
            states[self._seats.seat("service", backend.service), _state(backend)] += 1
            place = [backend.service, backend.address, str(backend.port)]
            if self._seats.seat("backend", " ".join(place)) == OTHER:
                continue
            if backend.up is not None:
                up.add_metric(place, backend.up)
            drained.add_metric(place, backend.drained)
        yield up
        yield drained
        active = GaugeMetricFamily(
            "marchproxy_backend_active_flows",
            "Established flows of a backend that least-connections compares.",
            labels=labels,
        )
        for load in self._facts.loads:
            place = [load.service, load.address, str(load.port)]
            if self._seats.seat("backend", " ".join(place)) != OTHER:
                active.add_metric(place, load.flows)
        yield active
        count = GaugeMetricFamily(
            "marchproxy_backends",
            "Backends of a service that are checked or drained.",
            labels=["service", "state"],
        )
        for key, number in states.items():
            count.add_metric(key, number)
        yield count

    def _requests(self) -> Iterator[Metric]:
        out = GaugeMetricFamily(
            "marchproxy_http_backends_ejected",
            "Backends of a service that some process leaves out because requests failed there.",
            labels=["service"],
        )
        ejected: Counter[str] = Counter()
        for service, number in self._facts.ejected.items():
            ejected[self._seats.seat("service", service)] += number
        for service, number in ejected.items():
            out.add_metric([service], number)
        yield out
        events = CounterMetricFamily(
            "marchproxy_http_events",
            "What was done about backends that fail, requests to them, and copies of requests.",
            labels=["event"],
        )
        for event, number in self._facts.requests.items():
            events.add_metric([event], number)
        yield events

    def _logs(self) -> Iterator[Metric]:
        labels = ["cluster", "sink"]
        records: Counter[tuple[str, str, str]] = Counter()
        waiting: Counter[tuple[str, str]] = Counter()
        working: dict[tuple[str, str], bool] = {}
        for sink in self._facts.sinks:
            key = self._seats.seat("cluster", sink.cluster), sink.kind
            for result, count in {"sent": sink.sent, **sink.lost}.items():
                records[*key, result] += count
            waiting[key] += sink.waiting
            working[key] = working.get(key, True) and not sink.problem
        told = CounterMetricFamily(
            "marchproxy_log_records",
            "Records of a sink by what became of them; all but sent ones are lost.",
            labels=[*labels, "result"],
        )
        for of, count in records.items():
            told.add_metric(of, count)
        yield told
        queue = GaugeMetricFamily("marchproxy_log_queue", "Records that wait for a sink.", labels=labels)
        for sort, count in waiting.items():
            queue.add_metric(sort, count)
        yield queue
        up = GaugeMetricFamily("marchproxy_log_up", "1: the other end takes records.", labels=labels)
        for sort, works in working.items():
            up.add_metric(sort, works)
        yield up


def _counter(name: str, text: str, labels: Sequence[str], counts: Mapping[tuple[str, ...], int]) -> Metric:
    metric = CounterMetricFamily(name, text, labels=labels)
    for key, count in counts.items():
        metric.add_metric(key, count)
    return metric


def _state(backend: BackendFact) -> str:
    if backend.drained:
        return "drained"
    return "unchecked" if backend.up is None else "up" if backend.up else "down"


def render(facts: Facts, seats: Seats) -> bytes:
    """The text of one scrape: our metrics, then the process's own (memory, processor time, open files)."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(facts, seats))
    ProcessCollector(registry=registry)
    return generate_latest(registry)
