"""The JSON that scripts rely on."""

from dataclasses import replace

from marchproxy.dataplane.control import documents
from marchproxy.dataplane.outbox import Lost
from marchproxy.dataplane.records import (
    BackendEvent,
    InterfaceEvent,
    InterfaceState,
    ProblemEvent,
    ReloadEvent,
)
from marchproxy.dataplane.status import CertificateState, Problem
from marchproxy.model.entities import Role
from marchproxy.model.reason import Reason
from tests.dataplane import facts

DECISION = {
    "time": "2027-01-15T08:00:00.250Z",
    "id": 7,
    "source": "10.0.0.1",
    "source_port": 50000,
    "destination": "10.0.0.9",
    "destination_port": 443,
    "protocol": "tcp",
    "tier": "tc",
    "verdict": "allow",
    "reason": "FORWARDED",
    "mapping": "m",
    "revision": 3,
    "source_service": "",
    "destination_service": "",
    "name": "",
    "interface": "",
    "count": 1,
}
FLOW = {
    **DECISION,
    "backend": "10.9.0.1",
    "backend_port": 8443,
    "state": "established",
    "started": "2027-01-15T08:00:00.250Z",
    "last_seen": "2027-01-15T08:00:01.250Z",
    "packets_sent": 2,
    "bytes_sent": 300,
    "packets_received": 4,
    "bytes_received": 5000,
}


def test_a_flow_is_its_decision_and_what_became_of_it() -> None:
    assert documents.flow_document(facts.flow()) == FLOW


def test_an_event_is_its_kind_and_the_record() -> None:
    assert documents.event_document(facts.started()) == {"kind": "flow-start", **FLOW}
    refused = documents.event_document(facts.denied())
    assert refused == {"kind": "denied", **DECISION, "verdict": "deny", "reason": "NO_MAPPING", "mapping": ""}
    assert documents.event_document(Lost(3)) == {"kind": "lost", "count": 3}


def test_the_status_shows_counters_that_have_counted() -> None:
    shown = documents.status_document(facts.status())
    assert shown["counters"] == {"FORWARDED": {"packets": 10, "bytes": 1000}}
    assert shown["limits"] == [
        {"name": "all", "passed_packets": 1, "passed_bytes": 20, "dropped_packets": 3, "dropped_bytes": 40}
    ]
    assert shown["revision"] == {
        "number": 3,
        "sha256": "ab" * 32,
        "applied": "2027-01-15T07:59:30.250Z",
        "applied_ms": 12.5,
    }
    assert shown["tier"] == {"name": "kernel", "reason": "BPF is permitted"}
    assert shown["interfaces"] == [
        {"name": "eth0", "role": "inside", "mode": "auto", "attached": "tc", "problem": ""}
    ]
    assert shown["flow_table"] == [{"name": "flows", "used": 5, "limit": 100}]
    assert shown["names"] == {"db.example.com": ["192.0.2.1", "2001:db8::1"]}
    assert (shown["uptime_s"], shown["healthy"], shown["problems"]) == (60.0, True, [])


def test_a_problem_is_unhealthy_and_names_its_component() -> None:
    shown = documents.status_document(facts.status(Problem("names", "db does not resolve")))
    assert (shown["healthy"], shown["problems"]) == (False, ["names: db does not resolve"])


def test_every_reason_has_a_place_among_the_counters() -> None:
    counted = facts.status().counters
    assert set(counted) <= set(Reason)


def test_never_is_empty() -> None:
    assert documents.instant(0.0) == ""


BACKEND = {
    "service": "web",
    "address": "10.9.0.1",
    "port": 8443,
    "check": "http",
    "state": "down",
    "checked": True,
    "drained": False,
    "since": "2027-01-15T08:00:00.250Z",
    "why": "HTTP 503",
}


def test_backends() -> None:
    state = facts.backend_state()
    assert documents.backend_document(state) == BACKEND
    assert documents.backend_document(replace(state, up=True))["state"] == "up"
    unchecked = documents.backend_document(replace(state, up=None, check="none", since=0.0))
    assert (unchecked["state"], unchecked["since"]) == ("unchecked", "")
    assert documents.status_document(replace(facts.status(), backends=[state]))["backends"] == [BACKEND]


def test_a_change_of_health_is_a_line_of_its_own_kind() -> None:
    told = documents.event_document(BackendEvent(facts.backend_state()))
    assert told == {"kind": "backend", "time": BACKEND["since"], **BACKEND}


def test_events_of_no_flow_say_what_has_changed() -> None:
    problem, reload, interface, _ = map(documents.event_document, facts.own_events())
    assert problem == {
        "kind": "problem",
        "time": "2027-01-15T08:00:00.250Z",
        "change": "began",
        "component": "health",
        "message": "all backends of web are down",
    }
    assert (reload["change"], reload["revision"], reload["applied_ms"], reload["message"]) == (
        "applied",
        4,
        2.1,
        "",
    )
    assert (interface["change"], interface["name"], interface["attached"]) == ("attached", "eth0", "tc")
    over = ProblemEvent(facts.NOON, "health", "all", over=True)
    failed = ReloadEvent(facts.NOON, 4, "cd", 0, "a port is taken")
    lost = InterfaceEvent(facts.NOON, InterfaceState("eth0", Role.INSIDE, "auto", "", "it is gone"))
    events = (over, failed, lost)
    assert [documents.event_document(event)["change"] for event in events] == ["ended", "failed", "lost"]


def test_certificates_and_what_will_be_wrong_one_day() -> None:
    state = CertificateState("lab/web", ("a.example",), "CN=ca", "9f86", facts.NOON, True)
    warning = Problem("certificates", "certificate lab/web expires soon")
    shown = documents.status_document(replace(facts.status(), certificates=(state,), warnings=(warning,)))
    assert shown["certificates"] == [
        {
            "name": "lab/web",
            "hosts": ["a.example"],
            "issuer": "CN=ca",
            "fingerprint": "9f86",
            "expires": "2027-01-15T08:00:00.250Z",
            "usable": True,
        }
    ]
    assert shown["warnings"] == ["certificates: certificate lab/web expires soon"]
    assert (shown["healthy"], shown["problems"]) == (True, [])
