"""path: what was measured, in words. Real paths: tests/namespace/test_troubleshooting.py."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.doctor import path
from marchproxy.dataplane.doctor.finding import Severity
from marchproxy.dataplane.doctor.sizes import PathSize, Told
from marchproxy.dataplane.kernel.routelookup import Way
from tests.dataplane.doctor.patient import Patient

ADDRESS = ip_address("10.3.0.2")
DIRECT, ROUTED = Way("out0"), Way("out0", ip_address("10.2.0.2"))


@pytest.mark.parametrize(
    ("way", "found", "severity", "said", "fix"),
    [
        (
            ROUTED,
            PathSize(1300, 1500),
            Severity.ERROR,
            "more than 1300 bytes vanish",
            "ip route add 10.3.0.2 dev out0 via 10.2.0.2 mtu lock 1300",
        ),
        (
            DIRECT,
            PathSize(1300, 1500),
            Severity.ERROR,
            "MTU black hole",
            "ip route add 10.3.0.2 dev out0 mtu lock 1300",
        ),
        (ROUTED, PathSize(0, 1500), Severity.WARNING, "answers no echo", "ip neighbour show 10.2.0.2"),
        (DIRECT, PathSize(0, 1500), Severity.WARNING, "answers no echo", "ip neighbour show 10.3.0.2"),
        (DIRECT, PathSize(1500, 1500), Severity.OK, "packets of 1500 bytes get to 10.3.0.2", ""),
        (
            DIRECT,
            PathSize(100, 1500, Told(1400, "10.2.0.2")),
            Severity.OK,
            "takes 1400 bytes, and 10.2.0.2",
            "",
        ),
        (DIRECT, PathSize(100, 1500, Told(0, "10.2.0.2")), Severity.OK, "takes less, and 10.2.0.2", ""),
    ],
)
def test_what_a_measurement_means(way: Way, found: PathSize, severity: Severity, said: str, fix: str) -> None:
    finding = path.judged(ADDRESS, way, found)
    assert (finding.severity, finding.fix) == (severity, fix)
    assert said in finding.message


def test_no_way_at_all(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path, "route_to", lambda address: None)
    (finding,) = path.path(replace(patient.case, paths=[ADDRESS]))
    assert (finding.severity, finding.message) == (
        Severity.ERROR,
        "the routing table knows no way to 10.3.0.2",
    )


def test_others_than_root_are_told_so(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: object) -> object:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(path, "route_to", lambda address: DIRECT)
    monkeypatch.setattr(path, "look", patient.devices.get)
    monkeypatch.setattr(path, "Echoes", refuse)
    (finding,) = path.path(replace(patient.case, paths=[ADDRESS]))
    assert (finding.severity, finding.fix) == (Severity.WARNING, "sudo marchproxy doctor --path 10.3.0.2")


def test_nothing_is_sent_where_nobody_asks(patient: Patient) -> None:
    assert list(path.path(patient.case)) == []
