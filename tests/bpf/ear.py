"""What the programs report through the ring of events."""

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.layouts import EventRecord
from marchproxy.dataplane.kernel.ringbuf import RingBuffer
from tests.bpf.bed import Bed


class Ear:
    """Listens to the ring of a bed."""

    def __init__(self, bed: Bed) -> None:
        self._ring = RingBuffer(bed.maps["events"], layouts.EVENT.size)
        self.heard()

    def heard(self) -> list[EventRecord]:
        """Since the last call."""
        taken = self._ring.take()
        return [layouts.read_event(self._ring.record(taken, at)) for at in range(self._ring.count(taken))]

    def close(self) -> None:
        self._ring.close()
