"""features: yes, no and could-not-tell, and none of it leaves anything behind."""

import errno
import os
from types import SimpleNamespace

import pytest

from marchproxy.dataplane.kernel import features, libbpf
from marchproxy.dataplane.kernel.features import Answer
from tests import features as machine
from tests.dataplane.kernel.support import NEEDED, run_with_capabilities

PROBES = {
    # probe: what the test tree's own look at this machine calls it
    features.bpf: "bpf",
    features.xdp: "xdp",
    features.tcx: "tcx",
    features.ring_buffer: "ringbuf",
}

PROBE = """
from marchproxy.dataplane.kernel import features
print(*features.probe_all(), sep="\\n")
"""


@pytest.mark.parametrize("probe", PROBES, ids=PROBES.values())
def test_agrees_with_the_machine(probe: object) -> None:
    assert callable(probe)
    answer = machine.probe()[PROBES[probe]]
    if answer is None:
        assert probe().supported is True
    elif answer.startswith(machine.LACKS):
        assert probe().supported is False
    else:
        assert probe().supported is not True


@pytest.mark.requires("root", "bpf", "tcx", "xdp", "ringbuf")
def test_everything_is_there() -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert [str(answer) for answer in features.probe_all()] == [
        "BPF: yes",
        "XDP: yes",
        "tcx: yes",
        "LRU hash map: yes",
        "ring buffer: yes",
        "bpf_loop: yes",
    ]
    assert features.lacking() == ""
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.requires("root", "bpf")
def test_without_capabilities_it_says_which_are_missing() -> None:
    first, *others = run_with_capabilities(PROBE).splitlines()
    assert first == "BPF: no (not permitted: CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF missing)"
    assert others[0] == ("XDP: could not tell (not permitted: CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF missing)")
    assert all("could not tell" in line for line in others)


@pytest.mark.requires("root", "bpf", "tcx", "xdp", "ringbuf")
def test_each_of_them_is_missed_by_itself() -> None:
    """The verifier takes a small program without CAP_PERFMON, and not the pipeline."""
    for number, name in ((12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")):
        first, *_ = run_with_capabilities(PROBE, keep=NEEDED & ~(1 << number)).splitlines()
        assert first == f"BPF: no (not permitted: {name} missing)"


def test_the_capabilities_asked_for_are_enough() -> None:
    answers = run_with_capabilities(PROBE, keep=NEEDED).splitlines()
    assert all(answer.endswith(": yes") for answer in answers), answers


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "tcx: yes"),
        (errno.EINVAL, "tcx: no (not in this kernel; needs kernel 6.6)"),
        (errno.ENOSYS, "tcx: no (not in this kernel; needs kernel 6.6)"),
        (errno.EMFILE, "tcx: could not tell (Too many open files (EMFILE))"),
    ],
)
def test_three_answers(code: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_query_tcx", lambda: code)
    answer = features.tcx()
    assert str(answer) == words
    assert bool(answer) is (code == 0)


def test_a_kernel_without_bpf_loop_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As 5.15, whose verifier calls helper 181 invalid, and says EINVAL where others say EACCES."""
    for probe in ("bpf", "ring_buffer"):
        monkeypatch.setattr(features, probe, lambda: Answer("there", True, ""))
    monkeypatch.setattr(features, "_load_program", lambda *_: errno.EINVAL)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="5.15.0-204-generic"))
    assert features.lacking() == "kernel 5.15.0-204-generic has no bpf_loop; programs need kernel 6.1"
    monkeypatch.setattr(features, "_load_program", lambda *_: errno.EACCES)
    assert features.lacking() == ""
    monkeypatch.setattr(features, "_load_program", lambda *_: errno.ENOMEM)
    assert features.lacking() == "bpf_loop cannot be used: Cannot allocate memory (ENOMEM)"


def test_a_helper_that_no_kernel_has_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = features._CALL_LOOP[:4] + b"\xff\xff\0\0" + features._CALL_LOOP[8:]
    monkeypatch.setattr(features, "_CALL_LOOP", unknown)
    if features.bpf():
        assert str(features.loops()) == "bpf_loop: no (not in this kernel; needs kernel 5.17)"


def test_all_capabilities_and_still_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_query_tcx", lambda: errno.EPERM)
    monkeypatch.setattr(features, "missing_capabilities", lambda _: [])
    assert str(features.tcx()) == (
        "tcx: could not tell (not permitted although all capabilities are there:"
        " seccomp, kernel lockdown or a security module)"
    )


def test_without_libbpf_there_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libbpf, "_SONAME", "libbpf.so.99")
    libbpf.library.cache_clear()
    try:
        bpf, *others = features.probe_all()
    finally:
        libbpf.library.cache_clear()
    assert bpf.supported is False
    assert "libbpf.so.99 cannot be loaded" in bpf.detail
    assert [answer.supported for answer in others] == [None] * 5


def test_an_answer_is_true_only_for_yes() -> None:
    assert Answer("x", True, "1.0")
    assert not Answer("x", False, "1.0")
    assert not Answer("x", None, "1.0")
