"""What a daemon of the ABI before this one has left in the kernel: it is taken over, with its flows.

From ABI 1 to 2 the order of fields in `mp_flow` has changed and nothing else. So the folder of the pins
gets its new name, with programs and maps in it; the two tables of flows are put aside, and copied when the
new ones are there. Programs go on with the old tables until they are exchanged; then what has begun and
ended meanwhile is carried over too (`settle`). What is lost is what was counted in between, and packets of
flows that began in it may be refused for an instant.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import batched
from pathlib import Path
from struct import Struct

from marchproxy.bpf import FORMER
from marchproxy.dataplane.kernel.clock import KernelClock
from marchproxy.dataplane.kernel.errors import KernelError
from marchproxy.dataplane.kernel.layouts import FLOW, FlowEntry
from marchproxy.dataplane.kernel.libbpf import on_bpffs
from marchproxy.dataplane.kernel.maps import BATCH, NO_EXIST, Map
from marchproxy.dataplane.kernel.objects import open_pinned_map
from marchproxy.dataplane.kernel.pins import lock_directory

_TABLES = ("flows", "opening")
_STARTED = FLOW.pick("started")
_FORMER_FLOW = Struct("=16s16s2s2sIQQQQQQII6s6sIIIBBBxI")
_FORMER_FIELDS = (
    *("source", "destination", "source_port", "destination_port", "mapping", "id", "started", "last_seen"),
    *("packets", "octets", "route_checked", "route_epoch", "ifindex", "next_hop", "own_mac"),
    *("peer_fin_ack", "revision", "mtu", "state", "flags", "tier", "splice"),
)


def is_left(pins: Path) -> bool:
    """Whether there is a folder of the former ABI, and none of ours."""
    former = pins.with_name(f"v{FORMER}")
    return not pins.exists() and former.is_dir() and on_bpffs(former)


def put_aside(pins: Path) -> None:
    """Give the folder of the former ABI the name `pins`, if there is one and none of ours.

    Killed at any moment, it goes on the next time. Raises `Conflict` while its daemon runs.
    """
    if not is_left(pins):
        return
    former = pins.with_name(f"v{FORMER}")
    lock = lock_directory(former)
    try:
        for name in _TABLES:
            if (former / name).exists():
                (former / name).rename(aside(former, name))
        former.rename(pins)
    finally:
        os.close(lock)


def aside(folder: Path, table: str) -> Path:
    """Where the former table is until it has been copied."""
    return folder / f"{table}_v{FORMER}"


def copy_flows(pins: Path) -> Callable[[], None]:
    """Fill the tables of flows with what was put aside. What is returned is to be called when no program
    uses the former ones any more; once, and again it does nothing.
    """
    since = KernelClock().monotonic
    for before, table in _pairs(pins):
        for some in batched(before.items(), BATCH):
            table.update_many([(key, translated(flow)) for key, flow in some])
    return lambda: _settle(pins, since)


def _settle(pins: Path, since: int) -> None:
    """Add what began after the copy, take out what has ended, let go of the former tables."""
    for before, table in _pairs(pins):
        began = {key: _STARTED.unpack(flow)[0] for key, flow in table.items()}
        held = set()
        for key, flow in before.items():
            held.add(key)
            if key not in began:
                with suppress(KernelError):  # there again, or no room
                    table.set(key, translated(flow), NO_EXIST)
        # What is later than the copy and not in the former table has begun in this one.
        ended = (key for key, started in began.items() if started <= since and key not in held)
        for some in batched(ended, BATCH):
            table.delete_many(some)
    for name in _TABLES:
        aside(pins, name).unlink(missing_ok=True)


def _pairs(pins: Path) -> Iterator[tuple[Map, Map]]:
    """Each former table that there is, and its successor."""
    for name in _TABLES:
        former = aside(pins, name)
        if former.exists():
            with open_pinned_map(former) as before, open_pinned_map(pins / name) as table:
                yield before, table


def translated(former: bytes) -> bytes:
    """An entry in today's order."""
    fields = dict(zip(_FORMER_FIELDS, _FORMER_FLOW.unpack(former), strict=True))
    return FLOW.struct.pack(*FlowEntry(**fields))
