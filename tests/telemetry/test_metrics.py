"""What a scrape reads, parsed by the client library's own parser."""

from prometheus_client.parser import text_string_to_metric_families

from marchproxy.model.reason import Reason
from marchproxy.telemetry.metrics import Facts, render

FACTS = Facts(
    version="0.1.0",
    tier="kernel",
    revision=7,
    applied=1_800_000_000.0,
    apply_seconds=0.25,
    listeners=3,
    counters={Reason.FORWARDED: (10, 1000), Reason.NO_MAPPING: (2, 120)},
    denied=[(Reason.NO_MAPPING, "", 2), (Reason.DENY_MAPPING, "shop/no", 9)],
    audited=[(Reason.NO_MAPPING, "", 6)],
    limits={"all": (1, 20, 3, 40)},
    tables={"flows": (5, 100)},
    interfaces={"eth0": "xdp", "eth1": ""},
    names={"db.example.com": 2},
    backends=[
        ("web", "10.2.0.2", 80, True, False),
        ("web", "10.2.0.3", 80, False, True),
        ("db", "fd02::2", 5432, None, True),
    ],
    certificates={"lab/web": 1_900_000_000.0},
    problems={"policy": 0, "tier": 2},
    lost_events=4,
    reloads=8,
    failed_reloads=1,
)

type Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(facts: Facts) -> Samples:
    families = text_string_to_metric_families(render(facts).decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_every_fact_is_a_sample() -> None:
    found = samples(FACTS)
    assert found["marchproxy_info", (("tier", "kernel"), ("version", "0.1.0"))] == 1
    for name, labels, value in (
        ("revision", {}, 7),
        ("applied_timestamp_seconds", {}, 1_800_000_000),
        ("apply_seconds", {}, 0.25),
        ("listeners", {}, 3),
        ("certificate_expiry_timestamp_seconds", {"certificate": "lab/web"}, 1_900_000_000),
        ("packets_total", {"reason": "FORWARDED"}, 10),
        ("bytes_total", {"reason": "FORWARDED"}, 1000),
        ("packets_total", {"reason": "NO_MAPPING"}, 2),
        ("backend_up", {"service": "web", "address": "10.2.0.2", "port": "80"}, 1),
        ("backend_up", {"service": "web", "address": "10.2.0.3", "port": "80"}, 0),
        ("backend_drained", {"service": "web", "address": "10.2.0.2", "port": "80"}, 0),
        ("backend_drained", {"service": "db", "address": "fd02::2", "port": "5432"}, 1),
        ("denied_packets_total", {"reason": "NO_MAPPING", "mapping": ""}, 2),
        ("denied_packets_total", {"reason": "DENY_MAPPING", "mapping": "shop/no"}, 9),
        ("audited_packets_total", {"reason": "NO_MAPPING", "mapping": ""}, 6),
        ("limit_packets_total", {"limit": "all", "result": "passed"}, 1),
        ("limit_bytes_total", {"limit": "all", "result": "passed"}, 20),
        ("limit_packets_total", {"limit": "all", "result": "dropped"}, 3),
        ("limit_bytes_total", {"limit": "all", "result": "dropped"}, 40),
        ("table_entries", {"table": "flows"}, 5),
        ("table_limit", {"table": "flows"}, 100),
        ("interface_attached", {"interface": "eth0", "as": "xdp"}, 1),
        ("interface_attached", {"interface": "eth1", "as": ""}, 0),
        ("name_addresses", {"name": "db.example.com"}, 2),
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
        assert ("marchproxy_packets_total", (("reason", reason.name),)) in found


def test_the_process_tells_about_itself() -> None:
    assert samples(FACTS)["process_resident_memory_bytes", ()] > 1_000_000


def test_every_metric_of_ours_is_explained() -> None:
    for family in text_string_to_metric_families(render(FACTS).decode()):
        assert family.documentation.endswith("."), family.name


def test_names_from_outside_cannot_break_the_format() -> None:
    hostile = 'a"b\n} 1\nmarchproxy_fake 1'
    found = samples(
        Facts(**{**{name: getattr(FACTS, name) for name in FACTS.__slots__}, "interfaces": {hostile: "tc"}})
    )
    assert found["marchproxy_interface_attached", (("as", "tc"), ("interface", hostile))] == 1
    assert ("marchproxy_fake", ()) not in found
