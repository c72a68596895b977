"""What a daemon of the ABI before this one has left in the kernel: it is taken over, with its flows.

From ABI 1 to 2 the order of fields in `mp_flow` has changed and nothing else. So the folder of the pins
gets its new name, with programs and maps in it; the two tables of flows are put aside, and copied when the
new ones are there. Programs go on with the old tables until they are exchanged: what they count or open
after the copy, for some milliseconds, is not carried over.
"""

import os
from itertools import batched
from pathlib import Path
from struct import Struct

from marchproxy.dataplane.kernel.layouts import FLOW, FlowEntry
from marchproxy.dataplane.kernel.libbpf import on_bpffs
from marchproxy.dataplane.kernel.maps import BATCH, Map
from marchproxy.dataplane.kernel.objects import open_pinned_map
from marchproxy.dataplane.kernel.pins import lock_directory

FORMER = 1
"""The ABI that is taken over."""
_TABLES = ("flows", "opening")
_FORMER_FLOW = Struct("=16s16s2s2sIQQQQQQII6s6sIIIBBBxI")
_FORMER_FIELDS = (
    *("source", "destination", "source_port", "destination_port", "mapping", "id", "started", "last_seen"),
    *("packets", "octets", "route_checked", "route_epoch", "ifindex", "next_hop", "own_mac"),
    *("peer_fin_ack", "revision", "mtu", "state", "flags", "tier", "splice"),
)


def put_aside(pins: Path) -> None:
    """Give the folder of the former ABI the name `pins`, if there is one and none of ours.

    Killed at any moment, it goes on the next time. Raises `Conflict` while its daemon runs.
    """
    former = pins.with_name(f"v{FORMER}")
    if pins.exists() or not former.is_dir() or not on_bpffs(former):
        return
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


def copy_flows(pins: Path) -> None:
    """Fill the tables of flows with what was put aside, and let go of that."""
    for name in _TABLES:
        former = aside(pins, name)
        if not former.exists():
            continue
        with open_pinned_map(former) as before, open_pinned_map(pins / name) as table:
            _copy(before, table)
        former.unlink()


def _copy(before: Map, table: Map) -> None:
    for some in batched(before.items(), BATCH):
        table.update_many([(key, translated(flow)) for key, flow in some])


def translated(former: bytes) -> bytes:
    """An entry in today's order."""
    fields = dict(zip(_FORMER_FIELDS, _FORMER_FLOW.unpack(former), strict=True))
    return FLOW.struct.pack(*FlowEntry(**fields))
