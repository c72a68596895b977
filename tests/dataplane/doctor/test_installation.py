"""installation: the daemon, the store, and what lies about of both."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from marchproxy import bpf
from marchproxy.dataplane.doctor import installation
from marchproxy.dataplane.doctor.finding import Severity
from marchproxy.model.certificate import Certificate, Facts, Origin
from marchproxy.model.entities import Mapping
from marchproxy.model.errors import DaemonNotRunning, MarchproxyError, NotPermitted
from marchproxy.model.snapshot import Cluster, Snapshot
from tests.dataplane.doctor.patient import Patient, wrong


def test_no_daemon_is_an_error_and_one_that_may_not_be_asked_is_not(patient: Patient) -> None:
    patient.status = None
    problem = DaemonNotRunning("no daemon answers", hint="start it with: marchproxy run")
    gone = replace(patient.case, daemon_problem=problem)
    (finding,) = installation.daemon(gone)
    assert (finding.severity, finding.fix) == (Severity.ERROR, "marchproxy run")
    shut = replace(patient.case, daemon_problem=NotPermitted("this user may not", hint="sudo"))
    (finding,) = installation.daemon(shut)
    assert finding.severity is Severity.WARNING


def test_what_the_daemon_complains_about(patient: Patient) -> None:
    assert patient.status is not None
    patient.status["problems"] = ["tier: in0 is gone"]
    (finding,) = installation.daemon(patient.case)
    assert (finding.severity, finding.message) == (Severity.ERROR, "tier: in0 is gone")


def test_a_revision_that_was_not_taken_over(patient: Patient) -> None:
    assert patient.status is not None
    patient.status["revision"] = {"number": 0, "sha256": ""}
    (finding,) = wrong(list(installation.daemon(patient.case)))
    assert "it carries nothing" in finding.evidence


def test_a_store_that_cannot_be_read_or_means_nothing(patient: Patient) -> None:
    broken = replace(patient.case, store_problem=MarchproxyError("it is damaged", hint="restore it"))
    (finding,) = installation.store(broken)
    assert (finding.severity, finding.message, finding.fix) == (Severity.ERROR, "it is damaged", "restore it")
    damaged = replace(patient.case, store_problem=MarchproxyError("it is damaged"))
    (finding,) = installation.store(damaged)
    assert finding.fix == "marchproxy restore FILE"
    (finding,) = installation.store(replace(patient.case, policy_errors=2))
    assert finding.fix == "marchproxy check"


@pytest.mark.parametrize(
    ("path", "mode", "fix"),
    [
        ("state/marchproxy.db", 0o640, "go-rwx"),
        ("state/secret.key", 0o604, "go-rwx"),
        ("state", 0o777, "go-w"),
        ("run", 0o775, "go-w"),
        ("run/control.sock", 0o606, "o-rwx"),
    ],
)
def test_what_others_may_do(patient: Patient, path: str, mode: int, fix: str) -> None:
    (patient.folder / path).chmod(mode)
    (finding,) = installation.permissions(patient.case)
    assert finding.severity is Severity.ERROR
    assert finding.fix == f"chmod {fix} {patient.folder / path}"


def test_pins_of_another_version(patient: Patient) -> None:
    (patient.folder / "bpf/marchproxy/v0").mkdir()
    (finding,) = wrong(list(installation.pins(patient.case)))
    assert finding.fix == f"rm -r {patient.folder / 'bpf/marchproxy/v0'}"


def test_programs_that_nobody_looks_after(patient: Patient) -> None:
    patient.status = None
    assert list(installation.pins(patient.case)) == []
    links = patient.folder / f"bpf/marchproxy/v{bpf.ABI}/links"
    links.mkdir()
    (links / "in0").touch()
    (finding,) = installation.pins(patient.case)
    assert (finding.severity, finding.fix) == (Severity.WARNING, "marchproxy run")


def certificate(name: str, days: int, origin: Origin = Origin.ADDED, cluster: str = "default") -> Certificate:
    """One that ends in so many days."""
    now = datetime.now(UTC)
    made = Facts((), "CN=x", "CN=x", "EC P-384", "0" * 64, now, now + timedelta(days=days, minutes=5))
    return Certificate(cluster, name, origin, made, now, "")


def test_certificates_that_end(patient: Patient) -> None:
    used = Mapping("m", ("a",), ("b",), (), tls="used")
    snapshot = replace(Snapshot(), clusters=(Cluster("default", mappings=(used,)), Cluster("lab")))
    for each, severity in (
        (certificate("used", 31), Severity.OK),
        (certificate("used", 29), Severity.WARNING),
        (certificate("used", -1), Severity.ERROR),
        (certificate("other", 29), Severity.OK),
        (certificate("other", -1, cluster="lab"), Severity.WARNING),
        (certificate("ca", 29, Origin.AUTHORITY), Severity.WARNING),
    ):
        case = replace(patient.case, snapshot=snapshot, certificates=(each,))
        (finding,) = installation.certificates(case)
        assert finding.severity is severity, each
        if severity is not Severity.OK:
            option = " --cluster lab" if each.cluster == "lab" else ""
            assert finding.fix == f"marchproxy cert renew {each.name}{option}"
            who = "used by mapping 'm'" if each.name == "used" else "no listener uses it"
            assert finding.evidence == who
    assert list(installation.certificates(replace(patient.case, certificates=()))) == []


def test_certificates_that_are_fetched_and_late(patient: Patient) -> None:
    used = Mapping("m", ("a",), ("b",), (), tls="used")
    snapshot = replace(Snapshot(), clusters=(Cluster("default", mappings=(used,)),))
    fetched = replace(certificate("used", 12), fetched=True)
    began = fetched.facts.expires - timedelta(days=90)
    late = replace(fetched, facts=replace(fetched.facts, begins=began))
    for each, severity, fix in (
        (fetched, Severity.OK, ""),
        (late, Severity.WARNING, "marchproxy cert pull --now used"),
    ):
        (finding,) = installation.certificates(replace(patient.case, snapshot=snapshot, certificates=(each,)))
        assert (finding.severity, finding.fix) == (severity, fix)
