"""What a scrape reads, parsed by the client library's own parser."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from marchproxy.model.reason import Reason
from marchproxy.telemetry.facts import BackendFact, CarriedFact, DeviceCounts, Facts, LoadFact, Refused
from marchproxy.telemetry.logs.sink import SinkState
from marchproxy.telemetry.metrics import render
from marchproxy.telemetry.seats import MOST, OTHER, Seats

DOCUMENTED = Path(__file__).parents[2] / "docs" / "METRICS.md"
LOST = {"full": 3, "refused": 2, "unsent": 1}
FACTS = Facts(
    version="0.1.0",
    tier="kernel",
    revision=7,
    applied=1_800_000_000.0,
    apply_seconds=0.25,
    trial_seconds=41.5,
    listeners=3,
    counters={
        "kernel": {Reason.FORWARDED: (10, 1000), Reason.NO_MAPPING: (2, 120)},
        "admission": {Reason.FORWARDED: (1, 7)},
    },
    denied=[Refused(Reason.NO_MAPPING, "", 2, 120), Refused(Reason.DENY_MAPPING, "shop/no", 9, 540)],
    audited=[Refused(Reason.NO_MAPPING, "", 6, 360)],
    by_mapping=[
        CarriedFact("shop/out", "", "kernel", 2, (3, 300), (4, 4000)),
        CarriedFact("shop/out", "", "sockets", 1, (5, 50), (6, 60)),
    ],
    by_service=[
        CarriedFact("shop/lan", "source", "kernel", 2, (3, 300), (4, 4000)),
        CarriedFact("shop/web", "destination", "kernel", 2, (4, 4000), (3, 300)),
    ],
    limits={"all": (1, 20, 3, 40)},
    tables={"flows": (5, 100)},
    interfaces={"eth0": ("inside", "xdp"), "eth1": ("outside", "")},
    devices={"eth0": DeviceCounts((11, 1100), (12, 1200), 13, 14, 15, 16)},
    names={"db.example.com": (2, "resolved", 3), "gone.example.com": (0, "failing", 0)},
    questions={"answered": 5, "blocked": 1},
    backends=[
        BackendFact("web", "10.2.0.2", 80, True, False),
        BackendFact("web", "10.2.0.3", 80, False, True),
        BackendFact("db", "fd02::2", 5432, None, True),
    ],
    loads=[LoadFact("web", "10.2.0.2", 80, 21), LoadFact("web", "10.2.0.3", 80, 0)],
    missed=17,
    ejected={"web": 1},
    requests={"ejected": 2, "retried": 7},
    certificates={"lab/web": 1_900_000_000.0},
    problems={"policy": 0, "tier": 2},
    sinks=[
        SinkState(
            "default", "syslog", "udp://192.0.2.5:514", 40, {"full": 3, "refused": 2, "unsent": 1}, 9, ""
        ),
        SinkState(
            "lab", "http", "https://logs.example", 0, {"full": 0, "refused": 0, "unsent": 0}, 0, "gone"
        ),
    ],
    lost_events=4,
    reloads=8,
    failed_reloads=1,
)

LAN = {"service": "shop/lan", "side": "source", "tier": "kernel"}
WEB = {"service": "shop/web", "side": "destination", "tier": "kernel"}
DENIED = "marchproxy_denied_packets_total"

type Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(facts: Facts) -> Samples:
    families = text_string_to_metric_families(render(facts, Seats()).decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_every_fact_is_a_sample() -> None:
    found = samples(FACTS)
    [build] = [dict(labels) for name, labels in found if name == "marchproxy_build_info"]
    assert {"version": "0.1.0", "tier": "kernel"}.items() <= build.items()
    for name, labels, value in (
        ("revision", {}, 7),
        ("applied_timestamp_seconds", {}, 1_800_000_000),
        ("apply_seconds", {}, 0.25),
        ("listeners", {}, 3),
        ("trial_remaining_seconds", {}, 41.5),
        ("packets_total", {"reason": "FORWARDED", "by": "kernel"}, 10),
        ("packets_total", {"reason": "FORWARDED", "by": "admission"}, 1),
        ("bytes_total", {"reason": "FORWARDED", "by": "kernel"}, 1000),
        ("packets_total", {"reason": "NO_MAPPING", "by": "kernel"}, 2),
        ("backends", {"service": "web", "state": "up"}, 1),
        ("backends", {"service": "web", "state": "drained"}, 1),
        ("denied_bytes_total", {"reason": "DENY_MAPPING", "mapping": "shop/no"}, 540),
        ("audited_bytes_total", {"reason": "NO_MAPPING", "mapping": ""}, 360),
        ("interface_packets_total", {"interface": "eth0", "direction": "received"}, 11),
        ("interface_bytes_total", {"interface": "eth0", "direction": "sent"}, 1200),
        ("interface_errors_total", {"interface": "eth0", "direction": "received"}, 13),
        ("interface_dropped_total", {"interface": "eth0", "direction": "sent"}, 16),
        ("mapping_flows_total", {"mapping": "shop/out", "tier": "kernel"}, 2),
        ("mapping_packets_total", {"mapping": "shop/out", "tier": "kernel", "direction": "sent"}, 3),
        ("mapping_bytes_total", {"mapping": "shop/out", "tier": "kernel", "direction": "received"}, 4000),
        ("mapping_bytes_total", {"mapping": "shop/out", "tier": "sockets", "direction": "sent"}, 50),
        ("service_flows_total", {"service": "shop/lan", "side": "source", "tier": "kernel"}, 2),
        ("service_packets_total", {**LAN, "direction": "received"}, 4),
        ("service_bytes_total", {**LAN, "direction": "sent"}, 300),
        ("service_bytes_total", {**WEB, "direction": "sent"}, 4000),
        ("service_bytes_total", {**WEB, "direction": "received"}, 300),
        ("names", {"state": "failing"}, 1),
        ("names", {"state": "learning"}, 0),
        ("dns_questions_total", {"outcome": "blocked"}, 1),
        ("log_records_total", {"cluster": "default", "sink": "syslog", "result": "sent"}, 40),
        ("log_records_total", {"cluster": "default", "sink": "syslog", "result": "full"}, 3),
        ("log_queue", {"cluster": "default", "sink": "syslog"}, 9),
        ("log_up", {"cluster": "default", "sink": "syslog"}, 1),
        ("log_up", {"cluster": "lab", "sink": "http"}, 0),
        ("backend_up", {"service": "web", "address": "10.2.0.2", "port": "80"}, 1),
        ("backend_up", {"service": "web", "address": "10.2.0.3", "port": "80"}, 0),
        ("backend_drained", {"service": "web", "address": "10.2.0.2", "port": "80"}, 0),
        ("backend_drained", {"service": "db", "address": "fd02::2", "port": "5432"}, 1),
        ("backend_active_flows", {"service": "web", "address": "10.2.0.2", "port": "80"}, 21),
        ("backend_active_flows", {"service": "web", "address": "10.2.0.3", "port": "80"}, 0),
        ("name_unlearned", {"name": "db.example.com"}, 3),
        ("name_unlearned", {"name": "gone.example.com"}, 0),
        ("learned_missed_total", {}, 17),
        ("http_backends_ejected", {"service": "web"}, 1),
        ("http_events_total", {"event": "ejected"}, 2),
        ("http_events_total", {"event": "retried"}, 7),
        ("denied_packets_total", {"reason": "NO_MAPPING", "mapping": ""}, 2),
        ("denied_packets_total", {"reason": "DENY_MAPPING", "mapping": "shop/no"}, 9),
        ("audited_packets_total", {"reason": "NO_MAPPING", "mapping": ""}, 6),
        ("limit_packets_total", {"limit": "all", "result": "passed"}, 1),
        ("limit_bytes_total", {"limit": "all", "result": "passed"}, 20),
        ("limit_packets_total", {"limit": "all", "result": "dropped"}, 3),
        ("limit_bytes_total", {"limit": "all", "result": "dropped"}, 40),
        ("table_entries", {"table": "flows"}, 5),
        ("table_limit", {"table": "flows"}, 100),
        ("interface_attached", {"interface": "eth0", "role": "inside", "as": "xdp"}, 1),
        ("interface_attached", {"interface": "eth1", "role": "outside", "as": ""}, 0),
        ("name_addresses", {"name": "db.example.com"}, 2),
        ("certificate_expiry_timestamp_seconds", {"certificate": "lab/web"}, 1_900_000_000),
        ("problems", {"component": "tier"}, 2),
        ("healthy", {}, 0),
        ("lost_events_total", {}, 4),
        ("reloads_total", {"result": "applied"}, 8),
        ("reloads_total", {"result": "refused"}, 1),
    ):
        assert found[f"marchproxy_{name}", tuple(sorted(labels.items()))] == value, name


def test_every_reason_has_a_series_from_the_start() -> None:
    found = samples(FACTS)
    for reason in Reason:
        assert ("marchproxy_packets_total", (("by", "admission"), ("reason", reason.name))) in found


def test_the_process_tells_about_itself() -> None:
    assert samples(FACTS)["process_resident_memory_bytes", ()] > 1_000_000


def test_every_metric_of_ours_is_explained() -> None:
    for family in text_string_to_metric_families(render(FACTS, Seats()).decode()):
        assert family.documentation.endswith("."), family.name


def test_names_from_outside_cannot_break_the_format() -> None:
    hostile = 'a"b\n} 1\nmarchproxy_fake 1'
    found = samples(replace(FACTS, interfaces={hostile: ("inside", "tc")}))
    labels = (("as", "tc"), ("interface", hostile), ("role", "inside"))
    assert found["marchproxy_interface_attached", labels] == 1
    assert ("marchproxy_fake", ()) not in found


def test_labels_have_an_end_and_sums_do_not() -> None:
    many = [Refused(Reason.DENY_MAPPING, f"shop/m{number}", 1, 60) for number in range(MOST + 200)]
    backends = [
        BackendFact("web", f"10.2.{at // 250}.{at % 250}", 80, True, False) for at in range(MOST + 10)
    ]
    found = samples(replace(FACTS, denied=many, backends=backends))
    denied = {dict(labels)["mapping"]: value for (name, labels), value in found.items() if name == DENIED}
    assert len(denied) == MOST + 1
    assert denied[OTHER] == 200
    assert sum(denied.values()) == MOST + 200
    assert sum(name == "marchproxy_backend_up" for name, _ in found) == MOST
    assert found["marchproxy_backends", (("service", "web"), ("state", "up"))] == MOST + 10


def test_what_is_carried_has_an_end_of_labels_too() -> None:
    many = [CarriedFact(f"shop/m{at}", "", "kernel", 1, (1, 60), (2, 120)) for at in range(MOST + 200)]
    services = [replace(each, side=side) for each in many for side in ("source", "destination")]
    found = samples(replace(FACTS, by_mapping=many, by_service=services))
    for name, series in (("mapping", MOST + 1), ("service", 2 * (MOST + 1))):
        flows, octets = (
            [value for (key, _), value in found.items() if key == f"marchproxy_{name}_{what}_total"]
            for what in ("flows", "bytes")
        )
        assert len(flows) == series
        assert max(flows) == 200
        assert sum(octets) == 180 * sum(flows)


def test_a_series_stays_whoever_has_more_by_then() -> None:
    seats = Seats(most=1)
    for first, second in ((5, 1), (5, 99)):
        rows = [
            Refused(Reason.DENY_MAPPING, "shop/a", first, 0),
            Refused(Reason.DENY_MAPPING, "shop/b", second, 0),
        ]
        rows.sort(key=lambda row: -row.packets)
        text = render(replace(FACTS, denied=rows), seats).decode()
        assert f'{DENIED}{{mapping="shop/a",reason="DENY_MAPPING"}} {first}.0' in text
        assert f'{DENIED}{{mapping="{OTHER}",reason="DENY_MAPPING"}} {second}.0' in text


def test_the_list_in_the_documentation_is_the_list_of_the_emitters() -> None:
    documented = dict(re.findall(r"^\| `(marchproxy_\w+)` \| (\w+) \|", DOCUMENTED.read_text(), re.MULTILINE))
    emitted = {}
    for family in text_string_to_metric_families(render(FACTS, Seats()).decode()):
        if family.name.startswith("marchproxy_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            assert family.samples, f"{name} has no sample in the facts of this test"
            emitted[name] = family.type
    assert emitted == documented


def test_the_labels_in_the_documentation_are_those_of_the_emitters() -> None:
    rows = re.findall(r"^\| `(marchproxy_\w+)` \| \w+ \|([^|]*)\|", DOCUMENTED.read_text(), re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    found = samples(FACTS)
    emitted = {name: {key for key, _ in labels} for name, labels in found if name.startswith("marchproxy_")}
    assert emitted == documented


@pytest.mark.requires(commands=["promtool"])
def test_promtool_finds_nothing_to_say() -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=render(FACTS, Seats()), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
