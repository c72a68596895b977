"""Events out of the kernel's ring."""

from collections.abc import Callable
from typing import Final

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.records import RecordReader
from marchproxy.dataplane.kernel.ringbuf import RingBuffer
from marchproxy.dataplane.records import Event, EventKind

_NUMBERS = {
    EventKind.FLOW_START: layouts.EVENT_START,
    EventKind.FLOW_END: layouts.EVENT_END,
    EventKind.DENIED: layouts.EVENT_DENIED,
}
PER_READ: Final = 5000
"""Events that one reading decodes at most (20,000 a second). In a flood the newest are counted as lost, not kept waiting."""


class EventReader:
    """Reads in bulk, four times a second, and decodes only then."""

    def __init__(self, ring: Map, lost: Map, names: MappingNames) -> None:
        self._raw: list[bytes] = []
        self._ring = RingBuffer(ring, self._raw.append)
        self._lost = lost
        self._names = names
        self._skipped = 0

    @staticmethod
    def mask(kinds: frozenset[EventKind]) -> int:
        """`mp_settings.wanted_events`."""
        return sum(1 << _NUMBERS[kind] for kind in kinds)

    def read(self, sink: Callable[[Event], None]) -> None:
        """Deliver what is there."""
        while self._ring.consume():
            if len(self._raw) > PER_READ:
                self._skipped += len(self._raw) - PER_READ
                del self._raw[PER_READ:]
        if not self._raw:
            return
        reader = RecordReader(self._names)
        for raw in self._raw:
            sink(reader.event(raw))
        self._raw.clear()

    @property
    def lost(self) -> int:
        """Events that found the ring full, or came faster than they can be decoded."""
        cells = self._lost.get_percpu(layouts.U32.pack(0))
        return self._skipped + sum(int(layouts.U64.unpack(cell)[0]) for cell in cells)

    def close(self) -> None:
        """Stop reading."""
        self._ring.close()
