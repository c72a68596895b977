"""What this kernel can do, found out by asking it to.

Version numbers would lie: features are backported, and left out of configurations. Probes leave nothing
behind, need no interface, and never raise.
"""

import ctypes as ct
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from marchproxy.dataplane.kernel.errors import LibbpfMissing, describe
from marchproxy.dataplane.kernel.libbpf import TCX_INGRESS, library
from marchproxy.dataplane.kernel.maptypes import MapType
from marchproxy.dataplane.kernel.programs import ProgramType

_RETURN_ONE = b"\xb7\x00\x00\x00\x01\x00\x00\x00" + b"\x95\x00\x00\x00\x00\x00\x00\x00"
"""`r0 = 1; exit`: 1 is XDP_DROP, and for TC "the verdict is somebody else's"; neither is ever attached."""
_RETURN_POINTER = b"\xbf\xa0\x00\x00\x00\x00\x00\x00" + b"\x95\x00\x00\x00\x00\x00\x00\x00"
"""`r0 = r10; exit`: lets out an address of the kernel, which only those may whose programs are trusted."""
_CALL_LOOP = b"\x85\x00\x00\x00\xb5\x00\x00\x00" + b"\x95\x00\x00\x00\x00\x00\x00\x00"
"""`call bpf_loop; exit`: who knows the helper (181) refuses what its arguments are, others the call."""
_NO_INTERFACE = 0x7FFFFFFF
OLDEST = "6.1"
"""The kernel that the programs were made to load on."""
_NEEDED_CAPABILITIES = {12: "CAP_NET_ADMIN", 38: "CAP_PERFMON", 39: "CAP_BPF"}


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one probe."""

    feature: str
    supported: bool | None
    """None: the kernel did not let us find out."""
    since: str
    """The kernel that has it, as "6.6"; empty where it is not a matter of version."""
    detail: str = ""
    """Why not, or why it could not be told."""

    def __bool__(self) -> bool:
        return self.supported is True

    def __str__(self) -> str:
        words = {True: "yes", False: "no", None: "could not tell"}[self.supported]
        needs = f"needs kernel {self.since}" if self.supported is False and self.since else ""
        reasons = "; ".join(filter(None, (self.detail, needs)))
        return f"{self.feature}: {words}" + (f" ({reasons})" if reasons else "")


def bpf() -> Answer:
    """Whether this process may load programs for the network at all."""
    return _judge("BPF", "", _load_trusted, forbidden=False)


def xdp() -> Answer:
    """XDP programs. Whether a driver runs them natively shows only when one is attached."""
    return _judge("XDP", "5.9", lambda: _load_program(ProgramType.XDP))


def tcx() -> Answer:
    """TC programs as links. Asked about an impossible interface: ENODEV says that tcx is known."""
    return _judge("tcx", "6.6", _query_tcx)


def lru_hash() -> Answer:
    """Hash maps that evict the least recently used entry."""
    return _judge("LRU hash map", "4.10", lambda: _create_map(MapType.LRU_HASH, 4, 4, 1))


def ring_buffer() -> Answer:
    """Ring buffer maps."""
    return _judge(
        "ring buffer", "5.8", lambda: _create_map(MapType.RINGBUF, 0, 0, os.sysconf("SC_PAGE_SIZE"))
    )


def loops() -> Answer:
    """Loops whose body the verifier follows once (bpf_loop), which spares it most of the pipeline."""
    return _judge("bpf_loop", "5.17", _call_loop)


def probe_all() -> tuple[Answer, ...]:
    """Every answer, the one that decides about the others first."""
    return bpf(), xdp(), tcx(), lru_hash(), ring_buffer(), loops()


def lacking() -> str:
    """What the programs need and this kernel has not, in words for an operator; empty: all is there."""
    for answer in (bpf(), ring_buffer(), loops()):
        if answer:
            continue
        if answer.supported is False and answer.since:
            return f"kernel {os.uname().release} has no {answer.feature}; programs need kernel {OLDEST}"
        return f"{answer.feature} cannot be used: {answer.detail}"
    return ""


def _judge(feature: str, since: str, attempt: Callable[[], int], *, forbidden: bool | None = None) -> Answer:
    """Answer by the errno of `attempt` (0: it worked). `forbidden` is what being refused permission says."""
    try:
        code = attempt()
    except LibbpfMissing as missing:
        return Answer(feature, forbidden, "", missing.message)
    if code == 0:
        return Answer(feature, True, since)
    if code == errno.EPERM:
        return Answer(feature, forbidden, "" if forbidden is False else since, _why_forbidden())
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return Answer(feature, False, since, "not in this kernel")
    return Answer(feature, None, since, describe(code))


def _load_trusted() -> int:
    """Without CAP_PERFMON the verifier takes small programs, and calls what is in large ones invalid."""
    code = _load_program(ProgramType.SCHED_CLS) or _load_program(ProgramType.SCHED_CLS, _RETURN_POINTER)
    return errno.EPERM if code == errno.EACCES else code


def _load_program(kind: ProgramType, program: bytes = _RETURN_ONE) -> int:
    return _close(library().bpf_prog_load(kind, b"probe", b"GPL", program, len(program) // 8, None))


def _create_map(kind: MapType, key_size: int, value_size: int, max_entries: int) -> int:
    return _close(library().bpf_map_create(kind, b"probe", key_size, value_size, max_entries, None))


def _call_loop() -> int:
    code = _load_program(ProgramType.SCHED_CLS, _CALL_LOOP)
    return 0 if code == errno.EACCES else code


def _query_tcx() -> int:
    count = ct.c_uint32(0)
    code = -int(library().bpf_prog_query(_NO_INTERFACE, TCX_INGRESS, 0, None, None, ct.byref(count)))
    return 0 if code == errno.ENODEV else code


def _close(result: int) -> int:
    """Close a file descriptor that a probe got; its errno where it got none."""
    if result < 0:
        return -result
    os.close(result)
    return 0


def _why_forbidden() -> str:
    """EPERM has two causes that an operator fights differently."""
    missing = missing_capabilities(Path("/proc/self/status").read_text(encoding="ascii", errors="replace"))
    if missing:
        return f"not permitted: {', '.join(missing)} missing"
    return "not permitted although all capabilities are there: seccomp, kernel lockdown or a security module"


def missing_capabilities(status: str) -> list[str] | None:
    """What a process lacks of what programs need, by its /proc/PID/status; None: that does not say."""
    effective = next(
        (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), None
    )
    if effective is None:
        return None
    # CAP_SYS_ADMIN (21) includes CAP_BPF and CAP_PERFMON.
    covered = {38, 39} if effective >> 21 & 1 else set()
    return [
        name
        for number, name in _NEEDED_CAPABILITIES.items()
        if not effective >> number & 1 and number not in covered
    ]
