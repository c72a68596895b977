"""case: the machine's files, read without fear."""

from pathlib import Path

from marchproxy.dataplane.doctor.case import Case, read
from tests.dataplane.doctor.patient import Patient
from tests.policy.build import service, snapshot


def test_what_is_not_there_is_empty(tmp_path: Path) -> None:
    case = Case(proc=tmp_path)
    assert case.sysctl("net/ipv4/ip_forward") == ""
    assert list(case.lines("net/route")) == []
    assert read(tmp_path) == ""
    assert (case.interfaces, case.host_names, case.resolvers) == ((), [], ())


def test_host_names_are_those_that_somebody_can_look_up(patient: Patient) -> None:
    patient.snapshot = snapshot(service("a", "b.example.com", "a.example.com", "*.c.example.com", "10.0.0.1"))
    assert patient.case.host_names == ["a.example.com", "b.example.com"]


def test_bpf_is_used_unless_the_daemon_says_otherwise(patient: Patient) -> None:
    found = [patient.case.uses_bpf]
    assert patient.status is not None
    patient.status["tier"] = {"name": "sockets", "reason": "no BPF"}
    found.append(patient.case.uses_bpf)
    patient.status = None
    found.append(patient.case.uses_bpf)
    assert found == [True, False, True]
