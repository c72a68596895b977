"""Events out of the kernel's ring."""

from collections.abc import Callable
from typing import Final

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.records import RecordReader
from marchproxy.dataplane.kernel.ringbuf import RingBuffer
from marchproxy.dataplane.kernel.tunnels import TunnelTable
from marchproxy.dataplane.records import Event, EventKind

PER_READ: Final = 5000
"""Events that one reading decodes at most: 20,000 a second. In a flood the newest are counted as lost."""

_NUMBERS = {
    EventKind.FLOW_START: layouts.EVENT_START,
    EventKind.FLOW_END: layouts.EVENT_END,
    EventKind.DENIED: layouts.EVENT_DENIED,
    EventKind.AUDITED: layouts.EVENT_AUDITED,
}


class EventReader:
    """Reads in bulk, four times a second, and decodes only then. `lost` may be read by any thread."""

    def __init__(self, ring: Map, lost: Map, names: MappingNames, tunnels: TunnelTable) -> None:
        self._raw: list[bytes] = []
        self._ring = RingBuffer(ring, self._take)
        self._most = ring.max_entries // layouts.EVENT.size
        """As many as the ring can hold: who reads more runs after a flood for ever."""
        self._lost = lost
        self._names = names
        self._tunnels = tunnels
        self._skipped = 0

    @staticmethod
    def mask(kinds: frozenset[EventKind]) -> int:
        """`mp_settings.wanted_events`; kinds that no program reports are left out."""
        return sum(1 << _NUMBERS[kind] for kind in kinds if kind in _NUMBERS)

    def read(self, sink: Callable[[Event], None]) -> None:
        """Deliver what is there."""
        self._ring.consume(self._most)
        raw, self._raw = self._raw, []
        reader = RecordReader(self._names, self._tunnels)
        for each in raw:
            sink(reader.event(each))

    @property
    def lost(self) -> int:
        """Events that found the ring full, or came faster than they can be decoded."""
        cells = self._lost.get_percpu(layouts.U32.pack(0))
        return self._skipped + sum(int(layouts.U64.unpack(cell)[0]) for cell in cells)

    def close(self) -> None:
        """Stop reading."""
        self._ring.close()

    def _take(self, raw: bytes) -> None:
        if len(self._raw) < PER_READ:
            self._raw.append(raw)
        else:
            self._skipped += 1
