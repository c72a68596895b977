"""examination: every check is asked, and none of them keeps the others from speaking."""

import pytest

from marchproxy.dataplane.doctor import examination
from marchproxy.dataplane.doctor.case import Case
from marchproxy.dataplane.doctor.examination import CHECKS, examine
from marchproxy.dataplane.doctor.finding import Severity
from tests.dataplane.doctor.patient import Patient

OF_THE_REAL_MACHINE = {"kernel", "clock", "disk", "firewall", "kube-proxy"}


def test_a_healthy_machine_is_fine(patient: Patient) -> None:
    found = [finding for finding in examine(patient.case) if finding.check not in OF_THE_REAL_MACHINE]
    assert {finding.severity for finding in found} == {Severity.OK}, found
    quiet = {"offloads", "reverse-path", "names", "certificates", "path"}
    assert {finding.check for finding in found} == CHECKS.keys() - OF_THE_REAL_MACHINE - quiet


def test_without_anything_to_look_at_nothing_breaks() -> None:
    assert {finding.check for finding in examine(Case())} >= {"daemon", "store"}


def test_what_cannot_be_looked_at_is_said(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_: Case) -> None:
        raise PermissionError(13, "Permission denied", "/proc/1/limits")

    monkeypatch.setattr(examination, "CHECKS", {"files": forbidden})
    (finding,) = examine(patient.case)
    assert (finding.check, finding.severity) == ("files", Severity.WARNING)
    assert finding.evidence == "/proc/1/limits: Permission denied"


def test_files_that_look_otherwise_break_nothing(patient: Patient) -> None:
    for name in (
        "proc/net/route",
        "proc/net/ipv6_route",
        "proc/net/arp",
        "proc/self/mounts",
        "proc/77/limits",
    ):
        patient.write(name, "x\nMax open files\n0\n")
    found = list(examine(patient.case))
    assert CHECKS.keys() - {finding.check for finding in found} <= {
        "offloads",
        "reverse-path",
        "names",
        "certificates",
        "files",
        "path",
        "kube-proxy",
        "firewall",
    }


def test_whoever_says_that_something_is_wrong_says_what_to_do(patient: Patient) -> None:
    del patient.devices["in0"]
    patient.write("proc/sys/net/core/bpf_jit_enable", "0\n")
    patient.remove("proc/net/route")
    patient.status = None
    for finding in examine(patient.case):
        if finding.severity is not Severity.OK and finding.check not in OF_THE_REAL_MACHINE:
            assert finding.fix, finding


def test_everything_has_evidence(patient: Patient) -> None:
    everything = list(examine(patient.case))
    del patient.devices["in0"]
    for name in ("proc/net/route", "sys/kernel/btf/vmlinux"):
        patient.remove(name)
    patient.write("proc/sys/net/ipv6/conf/out0/forwarding", "0\n")
    everything += examine(patient.case)
    patient.status = None
    everything += examine(patient.case)
    assert [finding for finding in everything if not finding.evidence] == []
