"""Loaded BPF programs."""

import os
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Self

from marchproxy.dataplane.kernel import pins
from marchproxy.dataplane.kernel.errors import refusal
from marchproxy.dataplane.kernel.libbpf import ProgramInfo, object_info


class ProgramType(IntEnum):
    """The kinds of `enum bpf_prog_type` that the data plane has a use for."""

    SCHED_CLS = 3
    XDP = 6
    SK_LOOKUP = 30


@dataclass(frozen=True, slots=True)
class RunStatistics:
    """What the kernel counted since the program was loaded, while statistics were switched on."""

    runs: int
    nanoseconds: int
    """Of all runs together."""


_INSTRUCTION = 8
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of a loaded program."""

    instructions: int
    """As the kernel runs them, functions included."""
    verified: int
    """That the verifier looked at when it was loaded, of a million that it allows; 0 before kernel 5.16."""


class Program:
    """One loaded program, by a file descriptor that belongs to this object."""

    __slots__ = ("fd", "name")

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.name = name

    @property
    def type(self) -> int:
        """A ProgramType, or the kernel's number of a kind not listed there."""
        return int(self._info().type)

    @property
    def id(self) -> int:
        """The kernel's number of this program, never reused before the next boot: `bpftool prog` shows it."""
        return int(self._info().id)

    def run_statistics(self) -> RunStatistics:
        """Zeros unless switched on, by `testrun.run_statistics` or the sysctl `kernel.bpf_stats_enabled`."""
        info = self._info()
        return RunStatistics(int(info.run_cnt), int(info.run_time_ns))

    def size(self) -> Size:
        """How large the program is, and what it took to check it."""
        info = self._info()
        return Size(int(info.xlated_prog_len) // _INSTRUCTION, int(info.verified_insns))

    def close(self) -> None:
        """Give the file descriptor back; a program that is attached or pinned lives on. May be repeated."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Program {self.name}>"

    def _info(self) -> ProgramInfo:
        info = ProgramInfo()
        if (code := object_info(self.fd, info)) < 0:
            raise refusal(-code, f"read what program {self.name!r} is")
        return info


def open_pinned_program(path: Path) -> Program:
    """The program pinned at `path`. PinMissing or PinFailed."""
    return Program(pins.open_pin_of(path, pins.PinKind.PROGRAM), path.name)
