"""Documents with the field names of the Elastic Common Schema."""

import json

from marchproxy.model.reason import Reason, Verdict
from marchproxy.telemetry.logs.ecs import EcsEncoder
from marchproxy.telemetry.logs.records import Happening
from tests.telemetry.logs.made import asked, denied, ended, ended6, message


def document(record: object) -> dict[str, object]:
    return EcsEncoder("0.1.0").document(record)  # type: ignore[arg-type]


def test_a_flow_has_both_ends_and_what_went_between() -> None:
    found = document(ended(name="db.example"))
    assert found["@timestamp"] == "2027-01-15T08:00:00.250Z"
    assert found["event"] == {
        "kind": "event",
        "module": "marchproxy",
        "dataset": "marchproxy.flow",
        "category": ["network"],
        "type": ["connection", "end"],
        "action": "flow-end",
        "outcome": "success",
        "reason": "CLOSED",
        "id": "4711",
        "start": "2027-01-15T07:59:57.750Z",
        "end": "2027-01-15T08:00:00.250Z",
        "duration": 2_500_000_000,
    }
    assert found["source"] == {"ip": "10.1.0.2", "port": 40001, "packets": 10, "bytes": 1000}
    assert found["destination"] == {
        "ip": "10.1.0.1",
        "port": 80,
        "domain": "db.example",
        "packets": 20,
        "bytes": 30000,
        "nat": {"ip": "10.2.0.3", "port": 8080},
    }
    assert found["network"] == {
        "type": "ipv4",
        "iana_number": "6",
        "direction": "unknown",
        "transport": "tcp",
        "bytes": 31000,
        "packets": 30,
    }
    assert found["rule"] == {"name": "default/web"}
    observer = found["observer"]
    assert isinstance(observer, dict)
    assert observer["ingress"] == {"interface": {"name": "eth0"}}


def test_a_refusal_is_a_failure_and_no_flow() -> None:
    found = document(denied(reason=Reason.AUTH_INVALID, interface=""))
    event = found["event"]
    assert isinstance(event, dict)
    assert (event["outcome"], event["type"], event["reason"]) == (
        "failure",
        ["connection", "denied"],
        "AUTH_INVALID",
    )
    assert not event.keys() & {"id", "start", "end", "duration"}
    assert "rule" not in found
    assert "ingress" not in str(found["observer"])


def test_what_audit_let_through_went_through() -> None:
    event = document(denied(happening=Happening.AUDITED, verdict=Verdict.AUDIT))["event"]
    assert isinstance(event, dict)
    assert (event["action"], event["outcome"]) == ("audited", "success")


def test_protocols_by_their_names_in_the_schema() -> None:
    assert "ipv6-icmp" in str(document(ended6(protocol="icmp"))["network"])
    assert "transport" not in str(document(ended(protocol="47"))["network"])


def test_a_batch_is_one_array_whatever_names_hold() -> None:
    body = EcsEncoder("0.1.0").encode([ended(name='a"\n\ud800ü'), denied(), message("gone")])
    found = json.loads(body)
    assert len(found) == 3
    assert found[2]["message"] == "gone"
    assert found[2]["log"] == {"level": "warning"}
    assert all(each["ecs"] == {"version": "8.11.0"} for each in found)


def test_a_request_has_the_names_of_the_schema() -> None:
    document = EcsEncoder("0.1.0").document(asked())
    assert document["event"]["dataset"] == "marchproxy.access"
    assert document["event"]["duration"] == 12_500_000
    assert document["url"] == {"scheme": "https", "domain": "shop.example", "path": "/cart"}
    assert document["http"]["response"] == {"status_code": 200, "body": {"bytes": 30}}
    assert document["http"]["request"]["id"] == "c0ffee-1"
    assert document["tls"]["version"] == "1.3"
    assert document["trace"]["id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert document["span"]["id"] == "00f067aa0ba902b7"
    assert document["rule"] == {"name": "shop"}
    clear = EcsEncoder("0.1.0").document(asked(tls="", traceparent="", mapping="", status=503))
    assert not {"tls", "trace", "rule"} & clear.keys()
    assert clear["event"]["outcome"] == "failure"
