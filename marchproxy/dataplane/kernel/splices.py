"""Places of joined connections in the kernel's table, and who opened their flows."""

import threading
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map

ENTERING = 5.0
"""Seconds, more than it takes to enter a flow whose place is taken."""
_ID = slice(0, 8)
_NOTHING = bytes(layouts.SPLICE.size)
_FLAGS = layouts.SPLICE.pick("flags")


@dataclass(frozen=True, slots=True)
class Side:
    """What becomes of the packets of one side. Distances are modulo 2^32, shifts at most 14."""

    sequence: int
    """Added to sequence numbers."""
    timestamp: int
    """Added to TSvals."""
    announced: int
    """The shift that this side gives its own windows."""
    expected: int
    """The shift that the other side applies to them."""
    least: int
    """While the splice drains this side hears acknowledgements between these two."""
    most: int


@dataclass(frozen=True, slots=True)
class Splice:
    """`mp_splice`: how two connections are one."""

    id: int
    """Of the flow."""
    client: Side
    backend: Side
    draining: bool = False

    def pack(self) -> bytes:
        """As the programs read it."""
        client, backend = self.client, self.backend
        return layouts.SPLICE.struct.pack(
            self.id,
            layouts.U32_PAIR.pack(client.sequence, backend.sequence),
            layouts.U32_PAIR.pack(client.timestamp, backend.timestamp),
            layouts.U32_PAIR.pack(client.least, backend.least),
            layouts.U32_PAIR.pack(client.most, backend.most),
            bytes((client.announced, backend.announced)),
            bytes((client.expected, backend.expected)),
            layouts.SPLICE_DRAINING if self.draining else 0,
        )


class _Free:
    """A queue of places, none of which is 0. As numbers of Python's they would be five megabytes."""

    def __init__(self, places: Iterable[int], most: int) -> None:
        """`most`: that there will ever be at once."""
        self._ring = array("I", places)
        self._first, self._count = 0, len(self._ring)
        self._ring.frombytes(bytes(self._ring.itemsize * (most - self._count)))

    def take(self) -> int:
        """The first; 0: there is none."""
        if not self._count:
            return 0
        place = self._ring[self._first]
        self._first = (self._first + 1) % len(self._ring)
        self._count -= 1
        return place

    def put(self, place: int) -> None:
        """Behind all others."""
        self._ring[(self._first + self._count) % len(self._ring)] = place
        self._count += 1


class Splices:
    """Gives out the places of `splices`, and takes them back when no flow names them any more.

    A place that is taken has the id of its flow, so a restarted daemon knows which are; which of those are
    still needed the next sweep tells. Place 0 is nobody's. Threads may call this at once.
    """

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._map = maps["splices"]
        self._tunnels = maps["tunnels"]
        self._lock = threading.Lock()
        found = dict(_held(self._map))
        self._taken: dict[int, tuple[int, float]] = {
            place: (int.from_bytes(raw[_ID], "little"), 0.0) for place, raw in found.items()
        }
        """Place to flow and when it was given out."""
        for place, raw in found.items():
            self._end_interrupted(place, raw)
        held = frozenset(found)
        places = range(1, self._map.max_entries)
        self._free = _Free((each for each in places if each not in held), len(places))

    def place(self, splice: Splice) -> int | None:
        """Enter `splice`, and say where; None where all places are taken."""
        with self._lock:
            # The one that has been free for longest: the last packets of an ended flow may be on their way.
            place = self._free.take()
            if not place:
                return None
            self._taken[place] = (splice.id, time.monotonic())
        self.write(place, splice)
        return place

    def write(self, place: int, splice: Splice) -> None:
        """Change what a place that was given out holds."""
        self._map.set(layouts.U32.pack(place), splice.pack())

    def end_draining(self, place: int, splice: Splice) -> bool:
        """From now on the programs let no local socket know. Whether they held back acknowledgements."""
        raw = self._map.get(layouts.U32.pack(place)) or _NOTHING
        self.write(place, replace(splice, draining=False))
        return bool(_FLAGS.unpack(raw)[0] & layouts.SPLICE_HELD)

    def _end_interrupted(self, place: int, raw: bytes) -> None:
        """What drained when an earlier daemon died has no sockets any more that would have to hear of it.

        Left as it is, acknowledgements would stay below a bound that nobody raises. It is not ended: mostly
        the sockets held nothing, and the tunnel works.
        """
        *values, flags = layouts.SPLICE.struct.unpack(raw)
        if flags & layouts.SPLICE_DRAINING:
            self._map.set(layouts.U32.pack(place), layouts.SPLICE.struct.pack(*values, 0))

    def give_back(self, place: int) -> None:
        """Free a place whose flow never was, or is gone from all tables."""
        self._map.set(layouts.U32.pack(place), _NOTHING)
        with self._lock:
            flow, _ = self._taken.pop(place)
            self._free.put(place)
        self._tunnels.delete(layouts.U64.pack(flow))

    def settle(self, seen: Iterable[int], since: float) -> None:
        """Take back all places but those `seen` in flows by a walk that began at monotonic time `since`."""
        with self._lock:
            # A place is taken before its flow is there for the walk to see.
            held = {place for place, (_, taken) in self._taken.items() if taken < since - ENTERING}
        for place in held.difference(seen):
            self.give_back(place)


def _held(splices: Map) -> Iterator[tuple[int, bytes]]:
    """Places that hold something, and what. Mostly none of a hundred thousand does, and none is looked at."""
    for keys, values in splices.batches():
        held = bytes(values)
        if held == bytes(len(held)):
            continue
        for at, (place,) in enumerate(layouts.U32.iter_unpack(keys)):
            raw = held[at * layouts.SPLICE.size : (at + 1) * layouts.SPLICE.size]
            if raw != _NOTHING:
                yield place, raw
