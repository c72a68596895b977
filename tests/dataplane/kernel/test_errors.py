"""errors: an errno becomes a class and a sentence, a verifier log becomes its last useful lines."""

import errno
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel.errors import (
    ENOTSUPP,
    InterfaceMissing,
    KernelError,
    MapFull,
    MapLayoutChanged,
    NotPermitted,
    NotSupported,
    ProgramRejected,
    describe,
    interface_label,
    refusal,
    verifier_excerpt,
)
from marchproxy.model import errors as model

VERIFIER = "\n".join(f"{number}: (b7) r0 = {number}" for number in range(20))
LOG = (
    "libbpf: prog 'careless': BPF program load failed: Permission denied\n"
    "libbpf: prog 'careless': -- BEGIN PROG LOAD LOG --\n"
    f"{VERIFIER}\n"
    "R0 invalid mem access 'scalar'\n"
    "verification time 66 usec\n"
    "stack depth 4\n"
    "processed 21 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n"
    "-- END PROG LOAD LOG --\n"
    "libbpf: failed to load object 'x'\n"
)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.EPERM, NotPermitted),
        (errno.EOPNOTSUPP, NotSupported),
        (ENOTSUPP, NotSupported),
        (errno.ENODEV, InterfaceMissing),
        (errno.EINVAL, KernelError),
    ],
)
def test_errno_decides_the_class(code: int, kind: type[KernelError]) -> None:
    error = refusal(code, "attach x")
    assert type(error) is kind
    assert error.errno == code


def test_being_refused_is_what_front_ends_know_by_that_name() -> None:
    assert isinstance(refusal(errno.EPERM, "attach x"), model.NotPermitted)
    assert "CAP_BPF" in refusal(errno.EPERM, "attach x").hint


def test_a_sentence_with_the_name_of_the_errno() -> None:
    assert refusal(errno.EBUSY, "attach x").message == "cannot attach x: Device or resource busy (EBUSY)"
    assert describe(ENOTSUPP) == "Operation not supported (ENOTSUPP)"
    assert describe(4003) == "Unknown error 4003 (4003)"


def test_the_excerpt_ends_with_the_verifier_s_reason() -> None:
    assert verifier_excerpt(LOG, lines=3).splitlines() == [
        "    (18 earlier lines left out)",
        "    18: (b7) r0 = 18",
        "    19: (b7) r0 = 19",
        "    R0 invalid mem access 'scalar'",
    ]


def test_a_short_log_is_shown_whole() -> None:
    assert verifier_excerpt("out of stack\n\n") == "    out of stack"
    assert verifier_excerpt("") == ""


def test_a_rejection_keeps_the_whole_log() -> None:
    error = ProgramRejected("careless", errno=errno.EACCES, log=LOG)
    head, *excerpt = error.message.splitlines()
    assert head == "the verifier rejected program 'careless': Permission denied (EACCES)"
    assert excerpt[-1] == "    R0 invalid mem access 'scalar'"
    assert error.log == LOG


def test_what_programs_of_ours_decide_by_is_an_attribute() -> None:
    full = MapFull("flows", 16, written=3, errno=errno.E2BIG)
    assert (full.map_name, full.written, full.errno) == ("flows", 3, errno.E2BIG)
    changed = MapLayoutChanged("flows", Path("/pins/flows"), ("value size 8, wanted 16", "flags 0, wanted 1"))
    assert changed.message == (
        "pinned map 'flows' does not fit this version: value size 8, wanted 16, flags 0, wanted 1"
    )
    assert "/pins/flows" in changed.hint


def test_interfaces_are_named_while_they_exist() -> None:
    assert interface_label(1) == "interface lo (1)"
    assert interface_label(2**31 - 1) == "interface 2147483647"
    assert interface_label(-1) == "interface -1"
