"""machine: what the kernel gives, and what it does not."""

import os
from collections import namedtuple
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from marchproxy.dataplane.doctor import machine
from marchproxy.dataplane.doctor.finding import Severity
from marchproxy.dataplane.kernel import features
from marchproxy.dataplane.kernel.features import Answer
from marchproxy.model.entities import Interface, Mode, Role
from tests.dataplane.doctor.patient import SNAPSHOT, Patient, wrong

HAS = {name: Answer(name, True, "5.8") for name in ("BPF", "XDP", "tcx", "ring buffer", "bpf_loop")}


def probe(monkeypatch: pytest.MonkeyPatch, *answers: Answer) -> None:
    """What the kernel is asked is answered so."""
    found = HAS | {answer.feature: answer for answer in answers}
    monkeypatch.setattr(features, "probe_all", lambda: tuple(found.values()))


def test_a_kernel_that_has_everything(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    probe(monkeypatch)
    (finding,) = machine.kernel(patient.case)
    assert finding.severity is Severity.OK


@pytest.mark.parametrize(
    ("detail", "fix"),
    [
        ("libbpf.so.1 is not installed", "apt-get install libbpf1"),
        ("CAP_BPF missing", "sudo marchproxy doctor"),
    ],
)
def test_without_bpf_it_says_what_is_missing(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, detail: str, fix: str
) -> None:
    probe(monkeypatch, Answer("BPF", False, "", detail))
    patient.status = None
    (finding,) = machine.kernel(patient.case)
    assert (finding.severity, finding.fix) == (Severity.WARNING, fix)
    assert detail in finding.evidence


def test_who_may_not_ask_believes_the_daemon(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    probe(monkeypatch, Answer("BPF", False, "", "CAP_BPF missing"))
    (finding,) = machine.kernel(patient.case)
    assert finding.severity is Severity.OK


def test_a_kernel_too_old_for_the_programs_is_named(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe(monkeypatch, Answer("tcx", False, "6.6"), Answer("bpf_loop", False, "5.17", "not in this kernel"))
    for tier in ("sockets", None):
        patient.status = (
            {**patient.status, "tier": {"name": tier, "reason": ""}} if patient.status and tier else None
        )
        (finding,) = machine.kernel(patient.case)
        assert (finding.severity, finding.fix) == (Severity.WARNING, machine._newer_kernel())
        assert "none that is only routed" in finding.message
        assert finding.evidence.startswith(f"kernel {os.uname().release}: bpf_loop: no")


def test_why_sockets_carry_where_the_kernel_seems_to_have_all(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe(monkeypatch)
    assert patient.status
    patient.status["tier"] = {"name": "sockets", "reason": "the verifier rejected it"}
    (finding,) = machine.kernel(patient.case)
    assert finding.severity is Severity.WARNING
    assert finding.evidence == "the daemon says: the verifier rejected it"


def test_xdp_is_missed_by_those_who_want_it(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    probe(monkeypatch, Answer("XDP", False, "5.9"), Answer("tcx", False, "6.6"))
    assert not wrong(list(machine.kernel(patient.case)))
    patient.snapshot = replace(SNAPSHOT, interfaces=(Interface("in0", Role.INSIDE, Mode.XDP),))
    (finding,) = wrong(list(machine.kernel(patient.case)))
    assert (finding.severity, "XDP" in finding.message) == (Severity.ERROR, True)


def test_no_btf_is_a_warning(patient: Patient) -> None:
    patient.remove("sys/kernel/btf/vmlinux")
    (finding,) = machine.btf(patient.case)
    assert finding.severity is Severity.WARNING


def test_pins_need_their_file_system(patient: Patient) -> None:
    patient.write("proc/self/mounts", "bpf /sys/fs/other bpf rw 0 0\n")
    (finding,) = machine.bpffs(patient.case)
    assert (finding.severity, finding.evidence) == (Severity.ERROR, "/sys/fs/other")
    assert finding.fix == "mount -t bpf bpf /sys/fs/bpf"


def test_an_interpreter_is_slow(patient: Patient) -> None:
    patient.write("proc/sys/net/core/bpf_jit_enable", "0\n")
    (finding,) = machine.jit(patient.case)
    assert finding.severity is Severity.WARNING
    patient.remove("proc/sys/net/core/bpf_jit_enable")
    assert list(machine.jit(patient.case)) == []


def test_open_files_are_the_daemons(patient: Patient) -> None:
    patient.write("proc/77/limits", "Max open files            1024    65536    files\n")
    (finding,) = machine.files(patient.case)
    assert finding.severity is Severity.WARNING
    assert "1024" in finding.message
    assert "/proc/77/limits" in finding.evidence


def test_a_clock_nobody_keeps_is_a_warning(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_clock_state", lambda: 5)
    (finding,) = machine.clock(patient.case)
    assert finding.severity is Severity.WARNING
    monkeypatch.setattr(machine, "_clock_state", lambda: 0)
    (finding,) = machine.clock(patient.case)
    assert finding.severity is Severity.OK
    monkeypatch.setattr(machine, "_RELEASED", datetime(2999, 1, 1, tzinfo=UTC))
    (finding,) = machine.clock(patient.case)
    assert finding.severity is Severity.ERROR


@pytest.mark.parametrize(
    ("free", "inodes", "severity"),
    [(1e9, 5, Severity.OK), (1e8, 5, Severity.WARNING), (1e6, 5, Severity.ERROR), (1e9, 0, Severity.ERROR)],
)
def test_a_disk_fills(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, free: float, inodes: int, severity: Severity
) -> None:
    space = namedtuple("space", "f_bavail f_frsize f_blocks f_files f_favail")
    answer = space(int(free / 4096), 4096, 10**7, 100, inodes)
    monkeypatch.setattr(os, "statvfs", lambda _: answer)
    assert {finding.severity for finding in machine.disk(patient.case)} == {severity}


@pytest.mark.parametrize(
    ("held", "missing"), [("c000003400", ""), ("200000", "CAP_NET_ADMIN"), ("1000", "CAP_PERFMON, CAP_BPF")]
)
def test_capabilities_are_the_daemons(patient: Patient, held: str, missing: str) -> None:
    patient.write("proc/self/status", "CapEff:\t0000000000000000\n")
    patient.write("proc/77/status", f"Name:\tmarchproxy\nCapEff:\t{held.zfill(16)}\n")
    (finding,) = machine.capabilities(patient.case)
    if not missing:
        assert (finding.severity, finding.evidence) == (Severity.OK, "/proc/77/status")
        return
    assert (finding.severity, finding.fix) == (Severity.WARNING, "systemctl revert marchproxy")
    assert finding.evidence == f"/proc/77/status: {missing} missing"


def test_capabilities_of_a_daemon_that_is_gone_or_not_there(patient: Patient) -> None:
    patient.remove("proc/77/status")
    (finding,) = machine.capabilities(patient.case)
    assert (finding.severity, finding.evidence) == (Severity.WARNING, "/proc/77/status has no CapEff")
    patient.status = None
    assert list(machine.capabilities(patient.case)) == []
