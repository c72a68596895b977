"""What the programs report through the ring of events."""

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.layouts import EventRecord
from marchproxy.dataplane.kernel.ringbuf import RingBuffer
from tests.bpf.bed import Bed


class Ear:
    """Listens to the ring of a bed."""

    def __init__(self, bed: Bed) -> None:
        self._raw: list[bytes] = []
        self._ring = RingBuffer(bed.maps["events"], self._raw.append)
        self.heard()

    def heard(self) -> list[EventRecord]:
        """Since the last call."""
        while self._ring.consume():
            pass
        events = [layouts.read_event(raw) for raw in self._raw]
        self._raw.clear()
        return events

    def close(self) -> None:
        self._ring.close()
