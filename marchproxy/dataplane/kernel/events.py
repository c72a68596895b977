"""Events out of the kernel's ring."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final

from marchproxy.dataplane.allowance import ALLOWANCE, Allowance
from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.records import RecordReader
from marchproxy.dataplane.kernel.ringbuf import RingBuffer
from marchproxy.dataplane.kernel.tunnels import TunnelTable
from marchproxy.dataplane.records import Event, EventKind

PER_READ: Final = 5000
"""Events that one reading decodes at most: 20,000 a second. On a busy machine it is fewer: `Allowance`."""
HELD: Final = 10_000
"""Events of flows, and as many refusals, that wait for a better moment. Newer ones are counted as lost."""

_NUMBERS = {
    EventKind.FLOW_START: layouts.EVENT_START,
    EventKind.FLOW_END: layouts.EVENT_END,
    EventKind.DENIED: layouts.EVENT_DENIED,
    EventKind.AUDITED: layouts.EVENT_AUDITED,
}
_KIND = layouts.EVENT.offset("kind")
_AUDITED, _DENIED = bytes((layouts.EVENT_AUDITED,)), bytes((layouts.EVENT_DENIED,))
_FLOWS = bytes((layouts.EVENT_START, layouts.EVENT_END))


class EventReader:
    """Reads in bulk, four times a second, and decodes as much as may be told. For one thread, but for `lost`.

    What audit lets through is told at once: mappings are learned from it, and the programs bound how much of
    it there is. Of the rest refusals have half if flows want it all, and flows likewise, so that neither
    silences the other. Ends are counted whoever is told of them, as they are taken from the ring.
    """

    def __init__(
        self,
        ring: Map,
        lost: Map,
        names: MappingNames,
        tunnels: TunnelTable,
        allowance: Allowance = ALLOWANCE,
        ended: Callable[[Sequence[bytes]], None] | None = None,
    ) -> None:
        """`ended` takes the raw records of all ends."""
        self._ended = ended
        self._told = bytes(_NUMBERS.values())
        """Kinds that somebody wants to be told of."""
        self._ring = RingBuffer(ring, layouts.EVENT.size)
        self._lost = lost
        self._names = names
        self._tunnels = tunnels
        self._allowance = allowance
        self._skipped = 0
        self._waiting: dict[bytes, deque[bytes]] = {kinds: deque() for kinds in (_AUDITED, _DENIED, _FLOWS)}
        """What was taken from the ring and not yet told, by kinds."""

    @staticmethod
    def mask(kinds: frozenset[EventKind]) -> int:
        """`mp_settings.wanted_events`; kinds that no program reports are left out."""
        return sum(1 << _NUMBERS[kind] for kind in kinds if kind in _NUMBERS)

    def want(self, kinds: frozenset[EventKind]) -> None:
        """Tell only of these kinds from now on."""
        self._told = bytes(_NUMBERS[kind] for kind in kinds if kind in _NUMBERS)

    def read(self, sink: Callable[[Event], None]) -> None:
        """Deliver what may be told now of what is there, in the order in which it happened."""
        began = time.thread_time()
        self._sort(self._ring.take())
        chosen = self._choose(self._allowance.events(PER_READ))
        self._allowance.take(len(chosen))
        self._tell(chosen, sink)
        self._allowance.spend(time.thread_time() - began)

    def finish(self, sink: Callable[[Event], None]) -> None:
        """Deliver all that waits here. What is in the ring is for the next daemon."""
        self._tell(self._choose(3 * HELD), sink)

    @property
    def lost(self) -> int:
        """Events that found the ring full, or came faster than they can be told."""
        cells = self._lost.get_percpu(layouts.U32.pack(0))
        return self._skipped + sum(int(layouts.U64.unpack(cell)[0]) for cell in cells)

    def close(self) -> None:
        """Stop reading."""
        self._ring.close()

    def _tell(self, chosen: Iterable[bytes], sink: Callable[[Event], None]) -> None:
        reader = RecordReader(self._names, self._tunnels)
        for raw in chosen:
            sink(reader.event(raw))

    def _sort(self, taken: bytes) -> None:
        """Put records where they wait. In a flood most are not even looked at."""
        kinds = self._ring.column(taken, _KIND)
        if self._ended and layouts.EVENT_END in kinds:
            ends = (at for at, kind in enumerate(kinds) if kind == layouts.EVENT_END)
            self._ended([self._ring.record(taken, at) for at in ends])
        for group, waiting in self._waiting.items():
            own = bytes(kind for kind in group if kind in self._told)
            others = kinds.translate(None, own)
            count, room = len(kinds) - len(others), HELD - len(waiting)
            numbers = (at for at, kind in enumerate(kinds) if kind in own) if others else range(count)
            if count:
                waiting.extend(self._ring.record(taken, at) for at in islice(numbers, room))
            self._skipped += max(0, count - room)

    def _choose(self, most: int) -> list[bytes]:
        """What is told now; `most` holds for all but what audit lets through."""
        audited, denied, flows = self._waiting.values()
        refusals = min(len(denied), max(most // 2, most - len(flows)))
        parts = [
            _drawn(waiting, count)
            for waiting, count in ((audited, HELD), (denied, refusals), (flows, most - refusals))
        ]
        chosen = [raw for part in parts for raw in part]
        if sum(map(bool, parts)) > 1:
            # Each part is in order, and each record begins with its time.
            chosen.sort(key=layouts.U64.unpack_from)
        return chosen


def _drawn(waiting: deque[bytes], most: int) -> list[bytes]:
    """The oldest of those that wait, which no longer do."""
    return [waiting.popleft() for _ in range(min(most, len(waiting)))]
