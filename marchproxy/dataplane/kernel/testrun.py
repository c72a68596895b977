"""Running one program on one packet, without an interface: the kernel's BPF_PROG_TEST_RUN.

It is what the packet tests use, and how the running program can be asked what it would do. Programs run for
real: maps are written, redirects are decided but not carried out.
"""

import ctypes as ct
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from marchproxy.dataplane.kernel.errors import NotSupported, refusal
from marchproxy.dataplane.kernel.libbpf import SkbContext, TestRunOptions, XdpContext, library
from marchproxy.dataplane.kernel.programs import Program, ProgramType

SHORTEST_PACKET = 14
"""Bytes: the kernel takes no frame without a whole Ethernet header."""

_ROOM = 4096
"""Bytes by which a program may make its packet longer."""
_CONTEXT_ROOM = 512
"""Bytes: the kernel wants to return its context whole; `struct __sk_buff` has 192, and has grown before."""
_RUN_TIME = 0
"""BPF_STATS_RUN_TIME."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What the program did."""

    action: int
    """Its return value: an XDP_ or TC_ACT_ number."""
    packet: bytes
    """The whole frame afterwards."""
    duration_ns: int
    """Per run. The kernel's clock ticks around the runs add some 20 ns to a single one."""
    mark: int = 0
    """TC: the packet's mark afterwards."""


def run(program: Program, packet: bytes, *, ifindex: int = 0, mark: int = 0, repeat: int = 1) -> RunResult:
    """Run an XDP or TC program on a frame that begins with its Ethernet header.

    `ifindex` is the interface that the packet came in by, of the caller's network namespace; 0 is the
    loopback. `mark` is for TC only. With `repeat` above 1, a program that rewrites is given its own output
    from the second run on. ValueError for a packet that is too short, InterfaceMissing, NotSupported for
    other kinds of program.
    """
    if len(packet) < SHORTEST_PACKET:
        raise ValueError(f"a packet of {len(packet)} bytes, where the kernel runs at least {SHORTEST_PACKET}")
    context = _context(program, packet, ifindex, mark)
    output = ct.create_string_buffer(len(packet) + _ROOM)
    context_output = ct.create_string_buffer(_CONTEXT_ROOM)
    options = TestRunOptions(
        data_in=ct.cast(ct.c_char_p(packet), ct.c_void_p),
        data_size_in=len(packet),
        data_out=ct.addressof(output),
        data_size_out=len(output),
        ctx_in=ct.addressof(context),
        ctx_size_in=ct.sizeof(context),
        ctx_out=ct.addressof(context_output),
        ctx_size_out=len(context_output),
        repeat=repeat,
    )
    if (code := -library().bpf_prog_test_run_opts(program.fd, ct.byref(options))) != 0:
        raise refusal(code, f"run {program.name} on a packet of {len(packet)} bytes")
    return RunResult(
        action=int(options.retval),
        packet=output.raw[: options.data_size_out],
        duration_ns=int(options.duration),
        mark=int(SkbContext.from_buffer(context_output).mark) if isinstance(context, SkbContext) else 0,
    )


@contextmanager
def run_statistics() -> Iterator[None]:
    """Have the kernel count and time every run of every program meanwhile (some 20 ns each): kernel 5.8.

    The counts are read by `Program.run_statistics`. NotPermitted without CAP_SYS_ADMIN.
    """
    fd = library().bpf_enable_stats(_RUN_TIME)
    if fd < 0:
        raise refusal(-fd, "switch on run-time statistics")
    try:
        yield
    finally:
        os.close(fd)


def _context(program: Program, packet: bytes, ifindex: int, mark: int) -> XdpContext | SkbContext:
    """What the program is told beside the packet. The kernel refuses a context with any other field set."""
    kind = program.type
    if kind == ProgramType.SCHED_CLS:
        return SkbContext(mark=mark, ifindex=ifindex, ingress_ifindex=ifindex)
    if kind == ProgramType.XDP:
        return XdpContext(data=0, data_end=len(packet), ingress_ifindex=ifindex)
    raise NotSupported(f"{program.name} is neither an XDP nor a TC program (type {kind})")
