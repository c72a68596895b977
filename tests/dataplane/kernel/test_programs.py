"""programs: what the kernel knows about a loaded program."""

from pathlib import Path

import pytest

from marchproxy.dataplane.kernel import pins
from marchproxy.dataplane.kernel.errors import KernelError
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.programs import ProgramType, open_pinned_program
from marchproxy.dataplane.kernel.testrun import run, run_statistics
from tests.dataplane.kernel.support import FRAME

pytestmark = pytest.mark.requires("root", "bpf", "ringbuf", commands=["clang"])


def test_type_and_id(tables: BpfObject) -> None:
    assert tables.programs["xdp_first"].type == ProgramType.XDP
    assert tables.programs["tc_first"].type == ProgramType.SCHED_CLS
    ids = {program.id for program in tables.programs.values()}
    assert len(ids) == len(tables.programs)
    assert min(ids) > 0


def test_runs_are_counted_while_switched_on(tables: BpfObject) -> None:
    program = tables.programs["tc_first"]
    run(program, FRAME)
    before = program.run_statistics()
    with run_statistics():
        for _ in range(3):
            run(program, FRAME)
    after = program.run_statistics()
    assert after.runs - before.runs == 3
    assert after.nanoseconds > before.nanoseconds


@pytest.mark.requires("bpffs")
def test_a_pinned_program_lives_on(tables: BpfObject, bpffs: Path) -> None:
    program = tables.programs["tc_first"]
    number = program.id
    pins.pin(program.fd, bpffs / "kept")
    tables.close()
    with open_pinned_program(bpffs / "kept") as kept:
        assert (kept.id, kept.name) == (number, "kept")


def test_a_closed_program_says_so(tables: BpfObject) -> None:
    program = tables.programs["tc_first"]
    program.close()
    program.close()
    with pytest.raises(KernelError, match="cannot read what program 'tc_first' is"):
        _ = program.id
